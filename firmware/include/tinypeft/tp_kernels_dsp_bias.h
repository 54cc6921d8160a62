/* Layers whose bias is trained, for cores with the DSP extension: the kernels of tp_kernels_dsp.h, whose sums start from
 * the bias that is there. Contracts are those of tp_conv_s8 and tp_fully_connected_s8, bit for bit. */
#ifndef TP_KERNELS_DSP_BIAS_H
#define TP_KERNELS_DSP_BIAS_H

#include "tp_kernels_dsp.h"

typedef struct {
  int32_t blocks, output_c; /* blocks of four channels */
  int32_t limit;            /* changes beyond -limit..limit - 1 clamp the output, which the compiler has proved */
  int32_t plain;            /* whether weights are */
  const int32_t *base;      /* (blocks,4): what sums start from with `bias` */
  const int32_t *bias;      /* (Cout): the bias that is not trained, as the operand would hold it */
} tp_bias_start_dsp_params;

typedef struct {
  tp_pointwise_dsp_params layer; /* its words lack what sums start from */
  tp_bias_start_dsp_params start;
  int32_t input_c;
} tp_pointwise_bias_dsp_params;

/* scratch: 32 bytes a block, then that of tp_pointwise_dsp_s8. */
void tp_pointwise_bias_dsp_s8(const tp_pointwise_bias_dsp_params *params, const int8_t *input, const int32_t *bias,
                              int8_t *output, void *scratch);

typedef struct {
  tp_conv_dsp_params layer; /* its words lack what sums start from */
  tp_bias_start_dsp_params start;
} tp_conv_bias_dsp_params;

/* scratch: 32 bytes a block, then that of tp_conv_dsp_s8. */
void tp_conv_bias_dsp_s8(const tp_conv_bias_dsp_params *params, const int8_t *input, const int32_t *bias,
                         int8_t *output, void *scratch);

typedef struct {
  tp_dense_dsp_params layer; /* its words lack what sums start from */
  tp_bias_start_dsp_params start;
} tp_dense_bias_dsp_params;

/* scratch: 16 bytes a block. */
void tp_dense_bias_dsp_s8(const tp_dense_bias_dsp_params *params, const int8_t *input, const int32_t *bias,
                          int8_t *output, void *scratch);

#endif
