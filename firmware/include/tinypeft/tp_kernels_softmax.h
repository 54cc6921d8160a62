/* Softmax in fixed point, as LiteRT's reference kernel, and its gradient. */
#ifndef TP_KERNELS_SOFTMAX_H
#define TP_KERNELS_SOFTMAX_H

#include "tp_types.h"

typedef struct {
  int32_t rows, depth;      /* depth at most 4095 */
  int32_t input_multiplier; /* beta * input scale * 2^26 = input_multiplier * 2^(input_left_shift - 31) */
  int32_t input_left_shift; /* 0 to 31 */
} tp_softmax_params;

/* output = softmax of each row, of scale 1/256 and zero point -128. input_shift (1) or NULL: the input's scale is
 * larger by 2^input_shift[0]. In place allowed. */
void tp_softmax_s8(const tp_softmax_params *params, const int8_t *input, const int8_t *input_shift, int8_t *output);

typedef struct {
  int32_t rows, depth; /* depth at most 4095 */
} tp_softmax_backward_params;

/* d_input = p * (d_output - mean of d_output weighted by p) of each row; `output` holds p as tp_softmax_s8 gives it.
 * In place on d_output allowed. */
void tp_softmax_backward_s16(const tp_softmax_backward_params *params, const tp_bfp *d_output, const int8_t *output,
                             tp_bfp *d_input);

#endif
