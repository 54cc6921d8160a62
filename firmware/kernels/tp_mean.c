#include "tinypeft/tp_arithmetic.h"
#include "tinypeft/tp_kernels_pool.h"

void tp_mean_s8(const tp_mean_params *params, const int8_t *input, int8_t *output) {
  for (int32_t c = 0; c < params->channels; c++) {
    int32_t sum = params->input_offset * params->count;
    const int8_t *x = input + c;
    for (int32_t p = 0; p < params->count; p++) {
      sum += *x;
      x += params->channels;
    }
    const int32_t result = tp_requantize(sum, params->multiplier, params->shift) + params->output_offset;
    output[c] = (int8_t)tp_clamp_s32(result, INT8_MIN, INT8_MAX);
  }
}

void tp_mean_backward_s16(const tp_mean_backward_params *params, const tp_bfp16 *d_output, tp_bfp16 *d_input) {
  const int32_t shift = tp_narrow_shift((int64_t)d_output->peak * params->multiplier);
  int16_t *first = d_input->mantissa;
  int32_t peak = 0;
  for (int32_t c = 0; c < params->channels; c++) {
    const int32_t scaled = tp_round_shift_s32(d_output->mantissa[c] * params->multiplier, shift);
    first[c] = (int16_t)scaled;
    peak = tp_max_s32(peak, tp_abs_s32(scaled));
  }
  for (int32_t p = 1; p < params->count; p++) {
    memcpy(first + p * params->channels, first, (size_t)params->channels * sizeof *first);
  }
  d_input->exponent = d_output->exponent + params->exponent + shift;
  d_input->peak = peak;
}
