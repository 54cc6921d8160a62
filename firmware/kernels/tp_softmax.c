#include "tinypeft/tp_kernels_softmax.h"

#include "tinypeft/tp_arithmetic.h"
#include "tinypeft/tp_narrowing.h"

/* Fixed point Qm.n holds m integer and n fractional bits: Q5.26 differences, Q0.31 exponentials, Q12.19 their sum. */
#define SUM_INTEGER_BITS 12

static int32_t saturating_shift_left(int32_t x, int32_t bits) {
  const int32_t threshold = ((int32_t)1 << (31 - bits)) - 1;
  if (x > threshold) {
    return INT32_MAX;
  }
  return x < -threshold ? INT32_MIN : x * ((int32_t)1 << bits);
}

/* 1 / (1 + a) of a Q0.31 in [0, 1], as Q0.31: Newton's iteration in Q2.29. */
static int32_t one_over_one_plus(int32_t a) {
  const int32_t one = (int32_t)1 << 29;
  const int32_t half_denominator = (int32_t)(((int64_t)a + INT32_MAX + 1) / 2);
  int32_t x = 1515870810 + tp_doubling_high_mul(half_denominator, -1010580540); /* 48/17 - 32/17 d */
  for (int32_t i = 0; i < 3; i++) {
    const int32_t error = one - tp_doubling_high_mul(half_denominator, x);
    x += saturating_shift_left(tp_doubling_high_mul(x, error), 2);
  }
  return saturating_shift_left(x, 1);
}

static int32_t leading_zeros(uint32_t x) {
  int32_t count = 0;
  while (count < 32 && (x & 0x80000000u) == 0) {
    x <<= 1;
    count++;
  }
  return count;
}

void tp_softmax_s8(const tp_softmax_params *params, const int8_t *input, const int8_t *input_shift, int8_t *output) {
  const int32_t extra = input_shift != NULL ? input_shift[0] : 0;
  const int32_t left_shift = tp_clamp_s32(params->input_left_shift + extra, 0, 31);
  /* What lies further below the largest input counts as zero. */
  const int32_t diff_min = -(int32_t)(((uint32_t)31 << 26) >> left_shift);
  for (int32_t row = 0; row < params->rows; row++) {
    const int8_t *x = input + row * params->depth;
    int8_t *y = output + row * params->depth;
    int32_t largest = INT8_MIN;
    for (int32_t i = 0; i < params->depth; i++) {
      largest = tp_max_s32(largest, x[i]);
    }
    int32_t sum = 0;
    for (int32_t i = 0; i < params->depth; i++) {
      if (x[i] - largest >= diff_min) {
        const int32_t diff = tp_requantize(x[i] - largest, params->input_multiplier, left_shift);
        sum += tp_rounding_shift_right(tp_exp_on_negative_values(diff), SUM_INTEGER_BITS);
      }
    }
    const int32_t headroom = leading_zeros((uint32_t)sum);
    const int32_t reciprocal = one_over_one_plus((int32_t)(((uint32_t)sum << headroom) - 0x80000000u));
    const int32_t shift = SUM_INTEGER_BITS - headroom + 31 - 8;
    for (int32_t i = 0; i < params->depth; i++) {
      int32_t result = INT8_MIN;
      if (x[i] - largest >= diff_min) {
        const int32_t diff = tp_requantize(x[i] - largest, params->input_multiplier, left_shift);
        const int32_t product = tp_doubling_high_mul(reciprocal, tp_exp_on_negative_values(diff));
        /* 32 bits and more leave less than a half */
        const int32_t probability = shift < 32 ? tp_rounding_shift_right(product, shift) : 0;
        result = tp_min_s32(probability + INT8_MIN, INT8_MAX);
      }
      y[i] = (int8_t)result;
    }
  }
}

/* Fractional bits of a gradient minus its mean, and the largest |p * (gradient - mean)| for a gradient of 1. */
#define MEAN_BITS 6
#define LARGEST (255 * 2 * (1 << MEAN_BITS))

/* sum / count rounded down, count > 0. */
static int32_t floor_divide(int64_t sum, int32_t count) {
  const int64_t quotient = sum / count;
  return (int32_t)(quotient - (quotient * count > sum ? 1 : 0));
}

void tp_softmax_backward_s16(const tp_softmax_backward_params *params, const tp_bfp *d_output, const int8_t *output,
                             tp_bfp *d_input) {
  tp_narrowing to = tp_narrow_within((int64_t)d_output->peak * LARGEST);
  do {
    for (int32_t row = 0; row < params->rows; row++) {
      const tp_mantissa *gradient = d_output->mantissa + row * params->depth;
      const int8_t *y = output + row * params->depth;
      tp_mantissa *target = d_input->mantissa + row * params->depth;
      int32_t total = 0;
      int64_t sum = 0;
      for (int32_t i = 0; i < params->depth; i++) {
        const int32_t p = y[i] - INT8_MIN;
        total += p;
        sum += gradient[i] * p;
      }
      const int32_t mean = floor_divide(sum * (1 << MEAN_BITS), tp_max_s32(total, 1));
      for (int32_t i = 0; i < params->depth; i++) {
        const int32_t centred = gradient[i] * (1 << MEAN_BITS) - mean;
        tp_put_mantissa(&to, (y[i] - INT8_MIN) * centred, &target[i]);
      }
    }
  } while (tp_next_pass(&to));
  tp_finish(&to, d_output->exponent - 8 - MEAN_BITS, d_input);
}
