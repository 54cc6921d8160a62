/* What the calls of CMSIS-NN share: its structs, made from ours. */
#ifndef TP_CMSIS_NN_H
#define TP_CMSIS_NN_H

#include <arm_nnfunctions.h>

#include "tinypeft/tp_kernels_cmsis_nn.h"

/* CMSIS-NN declares tables that it only reads without const. */
static inline cmsis_nn_per_channel_quant_params tp_cmsis_nn_quantization(const int32_t *multiplier,
                                                                         const int32_t *shift) {
  return (cmsis_nn_per_channel_quant_params){(int32_t *)multiplier, (int32_t *)shift};
}

static inline cmsis_nn_dims tp_cmsis_nn_input(const tp_window *w) {
  return (cmsis_nn_dims){1, w->input_h, w->input_w, w->input_c};
}

static inline cmsis_nn_dims tp_cmsis_nn_output(const tp_window *w) {
  return (cmsis_nn_dims){1, w->output_h, w->output_w, w->output_c};
}

static inline cmsis_nn_dims tp_cmsis_nn_filter(const tp_window *w, int32_t n, int32_t c) {
  return (cmsis_nn_dims){n, w->kernel_h, w->kernel_w, c};
}

static inline cmsis_nn_tile tp_cmsis_nn_stride(const tp_window *w) {
  return (cmsis_nn_tile){w->stride_w, w->stride_h};
}

static inline cmsis_nn_tile tp_cmsis_nn_padding(const tp_window *w) {
  return (cmsis_nn_tile){w->pad_left, w->pad_top};
}

static inline cmsis_nn_tile tp_cmsis_nn_dilation(const tp_window *w) {
  return (cmsis_nn_tile){w->dilation_w, w->dilation_h};
}

/* TP_ERR_SIZE where the library wants more than there is. */
static inline tp_status tp_cmsis_nn_enough(int32_t wanted, int32_t scratch_bytes) {
  return wanted <= scratch_bytes ? TP_OK : TP_ERR_SIZE;
}

#endif
