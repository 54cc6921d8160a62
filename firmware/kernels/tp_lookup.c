#include "tinypeft/tp_kernels_lookup.h"

#include "tinypeft/tp_arithmetic.h"

void tp_lookup_s8(const tp_lookup_params *params, const int8_t *input, int8_t *output) {
  const int8_t *at_zero = params->table + 128;
  for (int32_t i = 0; i < params->size; i++) {
    output[i] = at_zero[input[i]];
  }
}

void tp_lookup_backward_s16(const tp_lookup_backward_params *params, const tp_bfp16 *d_output, const int8_t *input,
                            tp_bfp16 *d_input) {
  const int32_t shift = tp_narrow_shift((int64_t)d_output->peak * params->largest);
  const int16_t *at_zero = params->slopes + 128;
  const int16_t *gradient = d_output->mantissa;
  int16_t *target = d_input->mantissa;
  int32_t peak = 0;
  for (int32_t i = 0; i < params->size; i++) {
    const int32_t scaled = tp_round_shift_s32(gradient[i] * at_zero[input[i]], shift);
    target[i] = (int16_t)scaled;
    peak = tp_max_s32(peak, tp_abs_s32(scaled));
  }
  d_input->exponent = d_output->exponent + params->exponent + shift;
  d_input->peak = peak;
}
