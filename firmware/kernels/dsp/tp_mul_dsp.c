#include "tinypeft/tp_arithmetic.h"
#include "tinypeft/tp_kernels_dsp_elementwise.h"
#include "tinypeft/tp_limited_rows.h"
#include "tinypeft/tp_simd.h"

/* Each half of a word, doubled. */
static inline uint32_t twice(uint32_t x) { return tp_sadd16(x, x); }

/* `limited` is a constant: whether the activation has limits of its own. */
TP_ALWAYS_INLINE int8_t product_result(const tp_mul_dsp_params *params, int32_t doubled, int32_t limited) {
  const int32_t result = tp_requantize_doubled(doubled, params->multiplier, params->shift, params->output_offset);
  if (limited) {
    return (int8_t)tp_clamp_s32(result, params->activation_min, params->activation_max);
  }
  return (int8_t)tp_ssat8(result);
}

TP_ALWAYS_INLINE void multiply(const tp_mul_dsp_params *given, int32_t count, const int8_t *input1,
                               const int8_t *input2, int8_t *output, int32_t limited) {
  const tp_mul_dsp_params params = *given; /* in registers, whatever output overwrites */
  const uint32_t offsets1 = (uint32_t)params.offsets1, offsets2 = (uint32_t)params.offsets2;
  for (int32_t i = count >> 2; i > 0; i--) {
    const uint32_t x = tp_load_word(input1), y = tp_load_word(input2);
    const uint32_t even1 = tp_sxtab16(offsets1, x), odd1 = tp_sxtab16_ror8(offsets1, x);
    const uint32_t even2 = twice(tp_sxtab16(offsets2, y));
    const uint32_t odd2 = twice(tp_sxtab16_ror8(offsets2, y));
    output[0] = product_result(&params, tp_smulbb(even1, even2), limited);
    output[1] = product_result(&params, tp_smulbb(odd1, odd2), limited);
    output[2] = product_result(&params, tp_smultt(even1, even2), limited);
    output[3] = product_result(&params, tp_smultt(odd1, odd2), limited);
    input1 += 4;
    input2 += 4;
    output += 4;
  }
  for (int32_t i = 0; i < (count & 3); i++) {
    const int32_t first = input1[i] + (int16_t)params.offsets1, second = input2[i] + (int16_t)params.offsets2;
    output[i] = product_result(&params, 2 * first * second, limited);
  }
}

TP_LIMITED_ROWS(multiply)

void tp_mul_dsp(const tp_mul_dsp_params *params, const int8_t *input1, const int8_t *input2, int8_t *output) {
  const int32_t limited = tp_is_limited(params->activation_min, params->activation_max);
  tp_for_each_row(&params->broadcast, limited ? limited_row : free_row, params, input1, input2, output);
}
