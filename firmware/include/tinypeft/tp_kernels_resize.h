/* Bilinear resizing and its gradient, in steps of 1/1024 of a pixel. */
#ifndef TP_KERNELS_RESIZE_H
#define TP_KERNELS_RESIZE_H

#include "tp_types.h"

/* Output i of an axis lies at input (i*step + start) / 1024; what lies in front of the first input or behind the last
 * is that input itself. */
typedef struct {
  int32_t input, output; /* extents; no output lies a whole input or more behind the last */
  int32_t step;
  int32_t start; /* 0, or step/2 - 512 where the centres of pixels are aligned */
} tp_resize_axis;

typedef struct {
  int32_t batch, channels;
  tp_resize_axis rows, columns;
} tp_resize_bilinear_params;

/* output (N,OH,OW,C) = the four nearest inputs (N,H,W,C), weighted, rounded half away from zero. */
void tp_resize_bilinear_s8(const tp_resize_bilinear_params *params, const int8_t *input, int8_t *output);

typedef struct {
  int32_t batch, channels;
  tp_resize_axis rows, columns;
  int32_t rows_l1, columns_l1; /* largest sum of an input's weights over the outputs of the axis, in 1/1024 */
} tp_resize_bilinear_backward_params;

/* d_input (N,H,W,C) = sum of d_output (N,OH,OW,C) over the outputs that each input has weight in. */
void tp_resize_bilinear_backward_s16(const tp_resize_bilinear_backward_params *params, const tp_bfp *d_output,
                                     tp_bfp *d_input);

#endif
