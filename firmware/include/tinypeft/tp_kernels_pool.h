/* Average pool, max pool and mean: forward and backward. Activations (H,W,C), batch 1.
 * Gradients: an output's mantissa pointer is set by the caller, its exponent and peak by the kernel. */
#ifndef TP_KERNELS_POOL_H
#define TP_KERNELS_POOL_H

#include "tp_kernels_conv.h"

typedef struct {
  tp_window window; /* no dilation */
  int32_t activation_min, activation_max;
} tp_pool_params;

/* output = clamp(mean of the window's taps inside the image, rounded half away from zero). */
void tp_average_pool_s8(const tp_pool_params *params, const int8_t *input, int8_t *output);

/* output = clamp(largest of the window's taps inside the image). */
void tp_max_pool_s8(const tp_pool_params *params, const int8_t *input, int8_t *output);

typedef struct {
  tp_window window;
  int32_t factor_shift; /* a window of n taps inside the image weighs floor(2^factor_shift / n + 1/2), at most 32767 */
  int32_t l1;           /* largest sum of the weights of the windows over one input */
} tp_average_pool_backward_params;

/* d_input = sum over the windows that cover an input of d_output / taps. d_output (OH,OW,C), d_input (H,W,C). */
void tp_average_pool_backward_s16(const tp_average_pool_backward_params *params, const tp_bfp16 *d_output,
                                  tp_bfp16 *d_input);

typedef struct {
  tp_window window;
  int32_t overlap; /* most windows that cover one input */
} tp_max_pool_backward_params;

/* Each window's d_output goes to its first largest input in row-major order; `input` is the forward pass's. */
void tp_max_pool_backward_s16(const tp_max_pool_backward_params *params, const tp_bfp16 *d_output, const int8_t *input,
                              tp_bfp16 *d_input);

typedef struct {
  int32_t count, channels;
  int32_t input_offset; /* -zero_point of the input */
  int32_t output_offset;
  int32_t multiplier, shift; /* of the sum: input scale / (output scale * count) */
} tp_mean_params;

/* output[c] = requantize(sum over count of input[p,c] + input_offset). input (count,C), output (C). */
void tp_mean_s8(const tp_mean_params *params, const int8_t *input, int8_t *output);

typedef struct {
  int32_t count, channels;
  int32_t multiplier, exponent; /* 1 / count = multiplier * 2^exponent */
} tp_mean_backward_params;

/* d_input[p,c] = d_output[c] / count. d_output (C), d_input (count,C). */
void tp_mean_backward_s16(const tp_mean_backward_params *params, const tp_bfp16 *d_output, tp_bfp16 *d_input);

#endif
