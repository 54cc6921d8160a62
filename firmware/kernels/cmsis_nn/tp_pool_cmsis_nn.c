#include "tp_cmsis_nn.h"

static cmsis_nn_pool_params pool_params(const tp_pool_params *params) {
  return (cmsis_nn_pool_params){
      .stride = tp_cmsis_nn_stride(&params->window),
      .padding = tp_cmsis_nn_padding(&params->window),
      .activation = {params->activation_min, params->activation_max},
  };
}

void tp_average_pool_cmsis_nn_s8(const tp_pool_params *params, const int8_t *input, int8_t *output, void *scratch) {
  const tp_window *w = &params->window;
  const cmsis_nn_context context = {scratch, 0};
  const cmsis_nn_pool_params pool = pool_params(params);
  const cmsis_nn_dims input_dims = tp_cmsis_nn_input(w), output_dims = tp_cmsis_nn_output(w);
  const cmsis_nn_dims filter_dims = tp_cmsis_nn_filter(w, 1, 1);
  (void)arm_avgpool_s8(&context, &pool, &input_dims, input, &filter_dims, &output_dims, output);
}

tp_status tp_average_pool_cmsis_nn_check(const tp_pool_params *params, int32_t scratch_bytes) {
  const tp_window *w = &params->window;
  return tp_cmsis_nn_enough(arm_avgpool_s8_get_buffer_size(w->output_w, w->input_c), scratch_bytes);
}

void tp_max_pool_cmsis_nn_s8(const tp_pool_params *params, const int8_t *input, int8_t *output) {
  const tp_window *w = &params->window;
  const cmsis_nn_context context = {NULL, 0};
  const cmsis_nn_pool_params pool = pool_params(params);
  const cmsis_nn_dims input_dims = tp_cmsis_nn_input(w), output_dims = tp_cmsis_nn_output(w);
  const cmsis_nn_dims filter_dims = tp_cmsis_nn_filter(w, 1, 1);
  (void)arm_max_pool_s8(&context, &pool, &input_dims, input, &filter_dims, &output_dims, output);
}
