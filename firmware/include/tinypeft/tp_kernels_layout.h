/* Operators that move data without computing: slices, transposes, padding, concatenation, gathering; and their
 * gradients. Gradients are tp_bfp; an output's mantissa pointer is set by the caller, its exponent and peak by the
 * kernel. */
#ifndef TP_KERNELS_LAYOUT_H
#define TP_KERNELS_LAYOUT_H

#include "tp_types.h"

#define TP_RANK_MAX 8

/* Some elements of an array, as a dense array of shape (extent[0], ..., extent[rank-1]): element (i, j, ...) lies at
 * offset + i*stride[0] + j*stride[1] + ... 1 <= rank <= TP_RANK_MAX; strides may be negative. */
typedef struct {
  int32_t rank;
  const int32_t *extent;
  const int32_t *stride;
  int32_t offset;
} tp_strided;

/* output (dense) = those elements of input. In place allowed where they come in the order in which they lie. */
void tp_strided_copy_s8(const tp_strided *params, const int8_t *input, int8_t *output);

/* The same of a gradient. */
void tp_strided_copy_s16(const tp_strided *params, const tp_bfp *d_output, tp_bfp *d_input);

typedef struct {
  tp_strided inner; /* of the larger array */
  int32_t size;     /* elements of the larger array */
  int32_t value;    /* what all others become */
} tp_strided_fill_params;

/* output (params->size) = params->value everywhere but at the elements params->inner, which are input (dense). */
void tp_pad_s8(const tp_strided_fill_params *params, const int8_t *input, int8_t *output);

/* d_input (params->size) = 0 everywhere but at the elements params->inner, which are d_output (dense). */
void tp_strided_scatter_s16(const tp_strided_fill_params *params, const tp_bfp *d_output, tp_bfp *d_input);

typedef struct {
  int32_t count;       /* of inputs */
  int32_t outer;       /* product of the extents in front of the axis */
  const int32_t *size; /* (count): elements of an input from the axis on */
} tp_concatenation_params;

/* output (outer, sum of sizes) = the inputs (outer, size[i]) side by side. An input that lies where it belongs inside
 * output, which takes outer == 1, stays there. */
void tp_concatenation_s8(const tp_concatenation_params *params, const int8_t *const *inputs, int8_t *output);

/* Which input each output of an axis is a copy of. */
typedef struct {
  int32_t input, output; /* extents */
  const int32_t *index;  /* (output): 0 <= index < input */
} tp_gather_axis;

typedef struct {
  int32_t outer, inner;
  tp_gather_axis rows, columns;
} tp_gather_params;

/* output[n,y,x,i] = input[n, rows.index[y], columns.index[x], i]. */
void tp_gather_s8(const tp_gather_params *params, const int8_t *input, int8_t *output);

/* The same seen from the inputs: input i goes to the outputs member[begin[i]], ..., member[begin[i+1] - 1]. */
typedef struct {
  int32_t input, output;
  const int32_t *begin;  /* (input + 1) */
  const int32_t *member; /* (output) */
} tp_gather_backward_axis;

typedef struct {
  int32_t outer, inner;
  tp_gather_backward_axis rows, columns;
  int32_t overlap; /* most outputs that are copies of one input */
} tp_gather_backward_params;

/* d_input = sum of d_output over the copies of each input. */
void tp_gather_backward_s16(const tp_gather_backward_params *params, const tp_bfp *d_output, tp_bfp *d_input);

#endif
