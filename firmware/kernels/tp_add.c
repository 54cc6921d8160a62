#include "tinypeft/tp_kernels_elementwise.h"

#include "tinypeft/tp_arithmetic.h"

void tp_add_s8(const tp_add_params *params, const int8_t *input1, const int8_t *input2, int8_t *output) {
  const int32_t unit = (int32_t)1 << params->left_shift;
  for (int32_t i = 0; i < params->size; i++) {
    const int32_t a = (input1[i] + params->input1_offset) * unit;
    const int32_t b = (input2[i] + params->input2_offset) * unit;
    const int32_t sum = tp_requantize(a, params->input1_multiplier, params->input1_shift) +
                        tp_requantize(b, params->input2_multiplier, params->input2_shift);
    const int32_t result = tp_requantize(sum, params->output_multiplier, params->output_shift) + params->output_offset;
    output[i] = (int8_t)tp_clamp_s32(result, params->activation_min, params->activation_max);
  }
}
