/* Sums, products, pools, means and softmax for Armv7E-M and Armv8-M cores with DSP instructions.
 * int8 throughout; activations (H,W,C), batch 1. */
#ifndef TP_KERNELS_DSP_ELEMENTWISE_H
#define TP_KERNELS_DSP_ELEMENTWISE_H

#include "tp_broadcast.h"
#include "tp_kernels_pool.h"

/* The final shift of tp_add_plane_dsp. */
#define TP_PLANE_SHIFT 20

typedef struct {
  tp_broadcast broadcast; /* the strides of its innermost loop are 1 */
  int32_t factor1, factor2, start;
  int32_t activation_min, activation_max;
} tp_add_plane_params;

/* output = clamp((start + (factor1*input1 >> 8) + (factor2*input2 >> 8)) >> TP_PLANE_SHIFT): a sum or difference of which
 * that is proved for all operands. output may be either operand. */
void tp_add_plane_dsp(const tp_add_plane_params *params, const int8_t *input1, const int8_t *input2, int8_t *output);

typedef struct {
  tp_broadcast broadcast;              /* as above */
  const int32_t *terms1, *terms2;      /* (256) each: twice an operand's term, by its bits as uint8 */
  int32_t multiplier, shift;           /* to the right, 1 to 31 */
  int32_t output_offset, activation_min, activation_max;
} tp_add_terms_params;

/* output = clamp(requantize(terms1[input1] + terms2[input2]) + output_offset), rounded twice. output may be either
 * operand. */
void tp_add_terms_dsp(const tp_add_terms_params *params, const int8_t *input1, const int8_t *input2, int8_t *output);

typedef struct {
  tp_broadcast broadcast;  /* as above */
  int32_t offsets1, offsets2; /* what is added to each operand, in both halves of a word */
  int32_t multiplier, shift;  /* to the right, 1 to 31 */
  int32_t output_offset, activation_min, activation_max;
} tp_mul_dsp_params;

/* output = clamp(requantize((input1 + offset1) * (input2 + offset2)) + output_offset), rounded twice. output may be either
 * operand. */
void tp_mul_dsp(const tp_mul_dsp_params *params, const int8_t *input1, const int8_t *input2, int8_t *output);

/* The pools of tp_kernels_pool.h, four channels at a time. */
void tp_average_pool_dsp(const tp_pool_params *params, const int8_t *input, int8_t *output);
void tp_max_pool_dsp(const tp_pool_params *params, const int8_t *input, int8_t *output);

typedef struct {
  int32_t count, channels;
  int32_t start; /* of each sum: input_offset * count */
  int32_t multiplier, shift; /* to the right, 1 to 31 */
  int32_t output_offset;
} tp_mean_dsp_params;

/* input (count,channels), output (channels): tp_mean_s8 of tp_kernels_reduce.h. */
void tp_mean_dsp(const tp_mean_dsp_params *params, const int8_t *input, int8_t *output);

typedef struct {
  int32_t rows, depth;
  const int32_t *exponentials; /* (256): e^(-i * beta * scale) as Q0.31, 0 from where it does not count */
} tp_softmax_table_params;

/* tp_softmax_s8 of tp_kernels_softmax.h without an input_shift. output may be input. */
void tp_softmax_table_s8(const tp_softmax_table_params *params, const int8_t *input, int8_t *output);

#endif
