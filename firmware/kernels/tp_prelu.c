#include "tinypeft/tp_arithmetic.h"
#include "tinypeft/tp_kernels_binary.h"

static void prelu_row(const void *context, const tp_loop *row, const int8_t *input1, const int8_t *input2,
                      int8_t *output) {
  const tp_prelu_params *params = context;
  for (int32_t i = 0; i < row->extent; i++) {
    const int32_t x = *input1 + params->input1_offset;
    int32_t result;
    if (x >= 0) {
      result = tp_requantize(x, params->positive_multiplier, params->positive_shift);
    } else {
      const int32_t product = x * (*input2 + params->input2_offset);
      result = tp_requantize(product, params->negative_multiplier, params->negative_shift);
    }
    output[i] = (int8_t)tp_clamp_s32(result + params->output_offset, INT8_MIN, INT8_MAX);
    input1 += row->stride1;
    input2 += row->stride2;
  }
}

void tp_prelu_s8(const tp_prelu_params *params, const int8_t *input1, const int8_t *input2, int8_t *output) {
  tp_for_each_row(&params->broadcast, prelu_row, params, input1, input2, output);
}
