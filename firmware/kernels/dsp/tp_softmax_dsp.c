#include "tinypeft/tp_arithmetic.h"
#include "tinypeft/tp_kernels_dsp_elementwise.h"

/* Q0.31 exponentials, Q12.19 their sum. */
#define SUM_INTEGER_BITS 12

/* 1 / (1 + a) of a Q0.31 in [0, 1], as Q0.31: Newton's iteration in Q2.29. */
static int32_t one_over_one_plus(int32_t a) {
  const int32_t one = (int32_t)1 << 29;
  const int32_t half_denominator = (int32_t)(((int64_t)a + INT32_MAX + 1) / 2);
  int32_t x = 1515870810 + tp_doubling_high_mul(half_denominator, -1010580540); /* 48/17 - 32/17 d */
  for (int32_t i = 0; i < 3; i++) {
    const int32_t error = one - tp_doubling_high_mul(half_denominator, x);
    x += tp_saturate_s32((int64_t)tp_doubling_high_mul(x, error) * 4);
  }
  return tp_saturate_s32((int64_t)x * 2);
}

/* x / 2^shift rounded, of x < 2^31, 1 <= shift <= 31. */
static inline uint32_t round_shift(uint32_t x, int32_t shift) { return (x + ((uint32_t)1 << (shift - 1))) >> shift; }

/* Half up, as both are positive. */
static inline uint32_t high_product(int32_t x, int32_t y) {
  return (uint32_t)(((int64_t)x * y + ((int64_t)1 << 30)) >> 31);
}

static int32_t largest_of(const int8_t *x, int32_t count) {
  int32_t largest = INT8_MIN;
  for (int32_t i = 0; i < count; i++) {
    largest = tp_max_s32(largest, x[i]);
  }
  return largest;
}

void tp_softmax_table_s8(const tp_softmax_table_params *params, const int8_t *input, int8_t *output) {
  const int32_t depth = params->depth, *exponentials = params->exponentials;
  for (int32_t row = params->rows; row > 0; row--) {
    const int32_t largest = largest_of(input, depth);
    uint32_t sum = 0;
    for (int32_t i = 0; i < depth; i++) {
      sum += round_shift((uint32_t)exponentials[largest - input[i]], SUM_INTEGER_BITS);
    }
    int32_t headroom = 0;
    while (((sum << headroom) & 0x80000000u) == 0) {
      headroom++; /* the largest input alone gives 2^19 */
    }
    const int32_t reciprocal = one_over_one_plus((int32_t)((sum << headroom) - 0x80000000u));
    const int32_t shift = SUM_INTEGER_BITS - headroom + 31 - 8; /* 32 bits and more leave less than a half */
    for (int32_t i = 0; i < depth; i++) {
      const uint32_t product = high_product(reciprocal, exponentials[largest - input[i]]);
      const int32_t probability = shift < 32 ? (int32_t)round_shift(product, shift) : 0;
      output[i] = (int8_t)tp_min_s32(probability + INT8_MIN, INT8_MAX);
    }
    input += depth;
    output += depth;
  }
}
