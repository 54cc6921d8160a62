/* Mean, largest and smallest element over axes of a tensor: forward and backward.
 * Gradients: an output's mantissa pointer is set by the caller, its exponent and peak by the kernel. */
#ifndef TP_KERNELS_REDUCE_H
#define TP_KERNELS_REDUCE_H

#include "tp_types.h"

/* Nested axes, outermost first: extents and strides in elements. Axes that are not needed come first, as n 1, s 0. */
typedef struct {
  int32_t n0, n1, n2;
  int32_t s0, s1, s2;
} tp_axes;

typedef struct {
  int32_t count, channels;
  int32_t input_offset; /* -zero_point of the input */
  int32_t output_offset;
  int32_t multiplier, shift; /* of the sum: input scale / (output scale * count) */
} tp_mean_params;

/* output[c] = requantize(sum over count of input[p,c] + input_offset). input (count,C), output (C). */
void tp_mean_s8(const tp_mean_params *params, const int8_t *input, int8_t *output);

typedef struct {
  tp_axes kept, reduced; /* of the input */
  int32_t input_offset;
  int32_t output_offset;
  int32_t multiplier, shift;
} tp_mean_axes_params;

/* The same over any axes; the outputs follow each other in the order of the kept axes. */
void tp_mean_axes_s8(const tp_mean_axes_params *params, const int8_t *input, int8_t *output);

typedef struct {
  int32_t count, channels;
  int32_t multiplier, exponent; /* 1 / count = multiplier * 2^exponent */
} tp_mean_backward_params;

/* d_input[p,c] = d_output[c] / count. d_output (C), d_input (count,C). */
void tp_mean_backward_s16(const tp_mean_backward_params *params, const tp_bfp *d_output, tp_bfp *d_input);

typedef struct {
  tp_axes kept, reduced; /* of d_input */
  int32_t multiplier, exponent;
} tp_mean_axes_backward_params;

/* The same over any axes. */
void tp_mean_axes_backward_s16(const tp_mean_axes_backward_params *params, const tp_bfp *d_output,
                               tp_bfp *d_input);

typedef struct {
  tp_axes kept, reduced; /* of the input */
  int32_t sign;          /* 1: the largest elements, -1: the smallest */
} tp_reduce_extreme_params;

/* output = the largest or smallest element over the reduced axes. */
void tp_reduce_extreme_s8(const tp_reduce_extreme_params *params, const int8_t *input, int8_t *output);

/* Each d_output goes to the first of the extreme elements in row-major order; `input` is the forward pass's. */
void tp_reduce_extreme_backward_s16(const tp_reduce_extreme_params *params, const tp_bfp *d_output,
                                    const int8_t *input, tp_bfp *d_input);

#endif
