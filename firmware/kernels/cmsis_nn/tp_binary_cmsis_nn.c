#include "tp_cmsis_nn.h"

void tp_add_cmsis_nn_s8(const tp_add_params *params, const int8_t *input1, const int8_t *input2, int8_t *output) {
  (void)arm_elementwise_add_s8(input1, input2, params->input1_offset, params->input1_multiplier, params->input1_shift,
                               params->input2_offset, params->input2_multiplier, params->input2_shift,
                               params->left_shift, output, params->output_offset, params->output_multiplier,
                               params->output_shift, params->activation_min, params->activation_max,
                               params->broadcast.row.extent);
}

void tp_mul_cmsis_nn_s8(const tp_mul_params *params, const int8_t *input1, const int8_t *input2, int8_t *output) {
  (void)arm_elementwise_mul_s8(input1, input2, params->input1_offset, params->input2_offset, output,
                               params->output_offset, params->output_multiplier, params->output_shift,
                               params->activation_min, params->activation_max, params->broadcast.row.extent);
}
