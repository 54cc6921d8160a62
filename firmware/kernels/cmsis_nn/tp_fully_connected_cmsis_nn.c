#include "tp_cmsis_nn.h"

static cmsis_nn_fc_params dense_params(const tp_fully_connected_cmsis_nn_params *params) {
  return (cmsis_nn_fc_params){
      .input_offset = 0,
      .filter_offset = 0,
      .output_offset = params->output_offset,
      .activation = {params->activation_min, params->activation_max},
  };
}

/* With MVE, accumulators start from sums of the filter in the context, which are in our bias, and not from the bias. */
static cmsis_nn_context filter_sums(const int32_t *bias) { return (cmsis_nn_context){(int32_t *)bias, 0}; }

void tp_fully_connected_cmsis_nn_s8(const tp_fully_connected_cmsis_nn_params *params, const int8_t *input,
                                    const int8_t *filter, const int32_t *bias, int8_t *output) {
  const cmsis_nn_context context = filter_sums(bias);
  const cmsis_nn_fc_params dense = dense_params(params);
  const cmsis_nn_per_tensor_quant_params quantization = {params->multiplier, params->shift};
  const cmsis_nn_dims input_dims = {params->positions, 1, 1, params->input_c};
  const cmsis_nn_dims filter_dims = {params->input_c, 1, 1, params->output_c};
  const cmsis_nn_dims bias_dims = {1, 1, 1, params->output_c};
  const cmsis_nn_dims output_dims = {params->positions, 1, 1, params->output_c};
  (void)arm_fully_connected_s8(&context, &dense, &quantization, &input_dims, input, &filter_dims, filter, &bias_dims,
                               bias, &output_dims, output);
}

void tp_fully_connected_per_channel_cmsis_nn_s8(const tp_fully_connected_cmsis_nn_params *params, const int8_t *input,
                                                const int8_t *filter, const int32_t *bias, const int32_t *multiplier,
                                                const int32_t *shift, int8_t *output) {
  const cmsis_nn_context context = filter_sums(bias);
  const cmsis_nn_fc_params dense = dense_params(params);
  const cmsis_nn_per_channel_quant_params quantization = tp_cmsis_nn_quantization(multiplier, shift);
  const cmsis_nn_dims input_dims = {params->positions, 1, 1, params->input_c};
  const cmsis_nn_dims filter_dims = {params->input_c, 1, 1, params->output_c};
  const cmsis_nn_dims bias_dims = {1, 1, 1, params->output_c};
  const cmsis_nn_dims output_dims = {params->positions, 1, 1, params->output_c};
  (void)arm_fully_connected_per_channel_s8(&context, &dense, &quantization, &input_dims, input, &filter_dims, filter,
                                           &bias_dims, bias, &output_dims, output);
}
