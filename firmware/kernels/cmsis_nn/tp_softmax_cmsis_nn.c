#include "tp_cmsis_nn.h"

void tp_softmax_cmsis_nn_s8(const tp_softmax_params *params, const int8_t *input, int8_t *output) {
  const int32_t diff_min = -((31 << 26) >> params->input_left_shift);
  arm_softmax_s8(input, params->rows, params->depth, params->input_multiplier, params->input_left_shift, diff_min,
                 output);
}
