#include "tp_cmsis_nn.h"

static cmsis_nn_conv_params conv_params(const tp_conv_params *params) {
  const tp_window *w = &params->window;
  return (cmsis_nn_conv_params){
      .input_offset = params->input_offset,
      .output_offset = params->output_offset,
      .stride = tp_cmsis_nn_stride(w),
      .padding = tp_cmsis_nn_padding(w),
      .dilation = tp_cmsis_nn_dilation(w),
      .activation = {params->activation_min, params->activation_max},
  };
}

void tp_conv_cmsis_nn_s8(const tp_conv_params *params, const int8_t *input, const int8_t *filter, const int32_t *bias,
                         const int32_t *multiplier, const int32_t *shift, int8_t *output, void *scratch) {
  const tp_window *w = &params->window;
  const cmsis_nn_context context = {scratch, 0};
  const cmsis_nn_conv_params conv = conv_params(params);
  const cmsis_nn_per_channel_quant_params quantization = tp_cmsis_nn_quantization(multiplier, shift);
  const cmsis_nn_dims input_dims = tp_cmsis_nn_input(w), output_dims = tp_cmsis_nn_output(w);
  const cmsis_nn_dims filter_dims = tp_cmsis_nn_filter(w, w->output_c, params->filter_c);
  const cmsis_nn_dims bias_dims = {1, 1, 1, w->output_c};
  (void)arm_convolve_wrapper_s8(&context, &conv, &quantization, &input_dims, input, &filter_dims, filter, &bias_dims,
                                bias, &output_dims, output);
}

tp_status tp_conv_cmsis_nn_check(const tp_conv_params *params, int32_t scratch_bytes) {
  const tp_window *w = &params->window;
  const cmsis_nn_conv_params conv = conv_params(params);
  const cmsis_nn_dims input_dims = tp_cmsis_nn_input(w), output_dims = tp_cmsis_nn_output(w);
  const cmsis_nn_dims filter_dims = tp_cmsis_nn_filter(w, w->output_c, params->filter_c);
  const tp_status status = tp_rounding_cmsis_nn_check();
  if (status != TP_OK) {
    return status;
  }
  return tp_cmsis_nn_enough(arm_convolve_wrapper_s8_get_buffer_size(&conv, &input_dims, &filter_dims, &output_dims),
                            scratch_bytes);
}
