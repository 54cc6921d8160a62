/* Padding and its gradient. Activations (H,W,C), batch 1. */
#ifndef TP_KERNELS_PAD_H
#define TP_KERNELS_PAD_H

#include "tp_types.h"

/* The larger array (padded_h,padded_w,padded_c) holds the smaller (h,w,c) from (top,left,front) on. */
typedef struct {
  int32_t h, w, c;
  int32_t padded_h, padded_w, padded_c;
  int32_t top, left, front;
  int32_t value; /* what surrounds it */
} tp_pad_params;

/* output (padded) = input (h,w,c) surrounded by params->value. */
void tp_pad_s8(const tp_pad_params *params, const int8_t *input, int8_t *output);

/* d_input (h,w,c) = the inner part of d_output (padded). In place allowed. */
void tp_pad_backward_s16(const tp_pad_params *params, const tp_bfp16 *d_output, tp_bfp16 *d_input);

#endif
