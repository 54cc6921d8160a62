/* Average pool and max pool: forward and backward. Activations (H,W,C), batch 1.
 * Gradients: an output's mantissa pointer is set by the caller, its exponent and peak by the kernel. */
#ifndef TP_KERNELS_POOL_H
#define TP_KERNELS_POOL_H

#include "tp_kernels_conv.h"

typedef struct {
  tp_window window; /* no dilation */
  int32_t activation_min, activation_max;
} tp_pool_params;

/* output = clamp(mean of the window's taps inside the image, rounded half away from zero). Of both pools, output may
 * lie in front of input as far as Op.behind says, and overwrite it. */
void tp_average_pool_s8(const tp_pool_params *params, const int8_t *input, int8_t *output);

/* output = clamp(largest of the window's taps inside the image). */
void tp_max_pool_s8(const tp_pool_params *params, const int8_t *input, int8_t *output);

typedef struct {
  tp_window window;
  int32_t factor_shift; /* a window of n taps inside the image weighs floor(2^factor_shift / n + 1/2), at most 32767 */
  int32_t l1;           /* largest sum of the weights of the windows over one input */
} tp_average_pool_backward_params;

/* d_input = sum over the windows that cover an input of d_output / taps. d_output (OH,OW,C), d_input (H,W,C). */
void tp_average_pool_backward_s16(const tp_average_pool_backward_params *params, const tp_bfp *d_output,
                                  tp_bfp *d_input);

typedef struct {
  tp_window window;
  int32_t overlap; /* most windows that cover one input */
} tp_max_pool_backward_params;

/* Each window's d_output goes to its first largest input in row-major order; `input` is the forward pass's. */
void tp_max_pool_backward_s16(const tp_max_pool_backward_params *params, const tp_bfp *d_output, const int8_t *input,
                              tp_bfp *d_input);

#endif
