#include "tinypeft/tp_mve.h"

#if defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 1)

void tp_mean_mve_s8(const tp_mean_params *params, const int8_t *input, int8_t *output) {
  const int32x4_t low = vdupq_n_s32(INT8_MIN);
  const int32x4_t high = vdupq_n_s32(INT8_MAX);
  for (int32_t c = 0; c < params->channels; c += 4) {
    const mve_pred16_t some = vctp32q((uint32_t)(params->channels - c));
    int32x4_t sum = vdupq_n_s32(params->input_offset * params->count);
    const int8_t *x = input + c;
    for (int32_t p = 0; p < params->count; p++) {
      sum = vaddq_s32(sum, vldrbq_z_s32(x, some));
      x += params->channels;
    }
    sum = vaddq_n_s32(tp_requantize_mve(sum, params->multiplier, params->shift), params->output_offset);
    vstrbq_p_s32(output + c, vminq_s32(vmaxq_s32(sum, low), high), some);
  }
}

#endif
