/* Chosen output channels of a layer computed anew from weights of their own, rows, and what their training takes. */
#ifndef TP_KERNELS_SPARSE_H
#define TP_KERNELS_SPARSE_H

#include "tp_kernels_conv.h"

typedef struct {
  tp_window window; /* output_c is the number of rows */
  int32_t filter_c; /* input channels that a row reads */
  const int16_t *first_channel; /* (rows): the first input channel that each row reads, ascending; NULL: all are read */
  int32_t input_offset;
  int32_t output_offset;
  int32_t activation_min, activation_max;
  int32_t rounds_once; /* requantise as fully connected layers do, else as convolutions */
} tp_sparse_rows_params;

/* output[.,r] = clamp(requantize(bias[r] + sum rows[r] * (input + input_offset))). input (H,W,Cin), output
 * (OH,OW,rows), rows (rows,KH,KW,filter_c), bias, multiplier, shift (rows). output may lie in front of input as far as
 * Op.behind says, and overwrite it. column: scratch of KH*KW*filter_c int16. */
void tp_sparse_rows_s8(const tp_sparse_rows_params *params, const int8_t *input, const int8_t *rows,
                       const int32_t *bias, const int32_t *multiplier, const int8_t *shift, int8_t *output,
                       void *column);

typedef struct {
  int32_t positions, channels, rows;
  const int16_t *channel; /* (rows), ascending */
} tp_channels_params;

/* output = base, but output[p,channel[r]] = rows[p,r]; base (positions,channels) may be output's own buffer. */
void tp_replace_channels_s8(const tp_channels_params *params, const int8_t *base, const int8_t *rows, int8_t *output);

/* selected[p,r] = d_output[p,channel[r]]; selected may be d_output's buffer. */
void tp_select_channels_s16(const tp_channels_params *params, const tp_bfp *d_output, tp_bfp *selected);

/* cleared = d_output, but 0 in the channels of the table; in place allowed. */
void tp_clear_channels_s16(const tp_channels_params *params, const tp_bfp *d_output, tp_bfp *cleared);

typedef struct {
  int32_t rows, row_size; /* row_size = KH*KW*filter_c */
  int32_t filter_c;
  const int16_t *first_channel; /* (rows): as in tp_sparse_rows_params */
  int32_t input_range;          /* largest |input + input_offset| */
  float input_scale;
  float output_scale;
  const float *filter_scale;      /* (rows) of the base layer: the finest scale used */
  const int32_t *base_multiplier; /* (rows) */
  const int8_t *base_shift;       /* (rows) */
} tp_sparse_quantize_params;

/* Quantise rows and their biases, each row with a scale of its own, and the bias so that no input drives the
 * accumulator out of int32. master_rows, rows (rows,row_size); master_bias, bias, multiplier, shift, scale (rows). For
 * the backward pass fold_multiplier (rows) and fold_exponent (1), the scales, and l1 (1), the largest sum of |rows| over
 * one input channel. */
void tp_sparse_quantize_f32(const tp_sparse_quantize_params *params, const float *master_rows,
                            const float *master_bias, int8_t *rows, int32_t *bias, int32_t *multiplier, int8_t *shift,
                            float *scale, int16_t *fold_multiplier, int32_t *fold_exponent, int32_t *l1);

/* The masters that rows stand for, which are quantised to the same integers, and what the backward pass derives. */
void tp_sparse_restore_f32(const tp_sparse_quantize_params *params, const int8_t *rows, const int32_t *bias,
                           const float *scale, float *master_rows, float *master_bias, int16_t *fold_multiplier,
                           int32_t *fold_exponent, int32_t *l1);

typedef struct {
  int32_t rows, row_size;
  int32_t channel_stride, element_stride; /* element i of channel c is weights[c*channel_stride + i*element_stride] */
  const int16_t *channel;                 /* (rows) */
  const float *unit;                      /* (rows): real value of one integer step */
} tp_initialize_from_channels_params;

/* master[r,i] = weights[channel[r],i] * unit[r]. */
void tp_initialize_from_channels_s8(const tp_initialize_from_channels_params *params, const int8_t *weights,
                                    float *master);
void tp_initialize_from_channels_s32(const tp_initialize_from_channels_params *params, const int32_t *weights,
                                     float *master);

#endif
