/* Backward kernels for cores with the DSP extension, such as Cortex-M4; gradients have mantissas of 16 bits. Each
 * computes what the kernel of tp_kernels_backward.h of the same name does, bit for bit. */
#ifndef TP_KERNELS_DSP_BACKWARD_H
#define TP_KERNELS_DSP_BACKWARD_H

#include "tp_kernels_backward.h"

/* How a routine narrows accumulators to mantissas: they start from `half` and are shifted right by `shift`. `largest`
 * and `smallest` (2 halves) are the extremes of the results so far. Of routines that add: result += (addend * factor +
 * addend_half) >> shift, where addend_scale holds factor in its high half, shift in the low one; the pointer moves on
 * with the results. */
typedef struct {
  int32_t half, shift;
  uint32_t largest, smallest;
  const int16_t *addend;
  int32_t addend_half;
  uint32_t addend_scale;
} tp_narrow_block;

/* Generated for the number of rows, of channels and of positions, four or fewer: result (positions,channels) = columns x
 * filter. columns (rows/2,4,2), half a pair more of an odd number of rows, filter (rows,channels). */
typedef void tp_column_routine(const uint32_t *columns, const int8_t *filter, int16_t *result, tp_narrow_block *to);

typedef struct {
  tp_conv_backward_params conv;
  tp_column_routine *routine; /* of Cout*KH*KW rows and Cin channels; it adds where there is an addend */
  tp_column_routine *rest; /* of the positions that are left of a multiple of four; NULL: none are */
  const int32_t *packed; /* the filter as a routine for packed ones takes it: a word of two rows and two channels, or
                          * two of two rows each, all rows of two channels first; NULL: as it lies */
} tp_conv_backward_dsp_params;

/* One group. scratch: 4*KH*KW*Cout int16, rounded up to an even number of rows. */
void tp_conv_backward_input_dsp_s16(const tp_conv_backward_dsp_params *params, const tp_bfp *d_acc,
                                    const int8_t *filter, const int32_t *l1, const tp_bfp *addend, tp_bfp *d_input,
                                    void *scratch);

/* Sums are multiplied by scale * 2^-32 and rounded, results so far by `factor`, of 16 bits. `largest` and `smallest` as
 * of tp_narrow_block. */
typedef struct {
  int32_t scale, factor;
  uint32_t largest, smallest;
} tp_low_rank_block;

/* Generated for the rank, the channels and the positions: two channels of result (positions,channels) = result * factor
 * + hidden (positions,rank) x rows. rows: of either channel all pairs. */
typedef void tp_low_rank_routine(const int16_t *hidden, int16_t *result, const uint32_t *rows,
                                 tp_low_rank_block *block);

typedef struct {
  tp_conv_backward_params conv;
  tp_low_rank_routine *routine;
} tp_conv_backward_low_rank_dsp_params;

/* tp_conv_backward_input_s16 of a 1x1 window of stride 1 that is all of the input, of 2 or 4 output channels and an
 * even number of input channels, with an addend. scratch: Cout int16. */
void tp_conv_backward_low_rank_dsp_s16(const tp_conv_backward_low_rank_dsp_params *params, const tp_bfp *d_acc,
                                       const int8_t *filter, const int32_t *l1, const tp_bfp *addend, tp_bfp *d_input,
                                       void *scratch);

/* Generated for the width and for how far results are apart: `rows` rows of a 3x3 filter over a plane of words, of which
 * each holds two rows of a column. Results are the upper halves of sums, rounded. taps: of each column rows 0 and 1, and
 * rows 1 and 2, in pairs; where every second row is empty, rows 0 and 2, and row 1 below. */
typedef void tp_plane_routine(const int16_t *plane, int16_t *result, const uint32_t taps[6], int32_t rows);

typedef struct {
  int32_t pairs; /* of rows */
  int32_t lower; /* bytes from the upper row of a pair to the lower one */
  int32_t shift; /* mantissas are multiplied with 2^shift */
  uint32_t mask; /* of the words, in both halves without the lowest `shift` bits; 0 in a half that has no row */
} tp_gather_block;

/* Generated for the same: rows of two channels to words of their planes. */
typedef void tp_gather_routine(const int16_t *mantissa, int16_t *first, int16_t *second,
                               const tp_gather_block *block);

typedef struct {
  tp_conv_backward_params conv;
  int32_t pairs; /* of rows of results that are computed together */
  int32_t doublings; /* of sums, by the routine */
  int32_t step; /* rows from a pair in the plane to the next: 2, or 1 where every second row and column, which has
                 * nothing, is left out: strides of 2 */
  int32_t columns, top, left; /* of the plane; where in it output (0,0) lies */
  tp_plane_routine *routine; /* of input_w positions, Cin apart */
  tp_gather_routine *gather; /* NULL: none for these strides */
} tp_depthwise_backward_dsp_params;

/* 3x3, no dilation, an even number of channels, no multiplier. 2^(8 - doublings) <= l1, unless that is 0.
 * scratch: (2,pairs+step-1,columns) words. */
void tp_depthwise_conv_backward_input_dsp_s16(const tp_depthwise_backward_dsp_params *params, const tp_bfp *d_acc,
                                              const int8_t *filter, tp_bfp *d_input, void *scratch);

/* What a routine that scales channels works with. Results are (half + mantissa * multiplier) >> shift; `square` is that
 * of the largest magnitude so far. Of outputs pass those that, less `first`, each byte of it, are below the upper bytes
 * of `limit`, unsigned. */
typedef struct {
  const int16_t *multiplier;
  int32_t half, shift, square;
  uint32_t first, limit;
  int32_t positions, bytes; /* of a position's multipliers */
  int32_t steps; /* 256 times the loops that a position takes */
} tp_scale_block;

/* Generated for how many channels a loop takes: result (positions,channels) of as many mantissas and, of each, what
 * tells whether it passes: an int8 output or the bit of a mask. */
typedef void tp_scale_routine(const int16_t *mantissa, const void *clamp, int16_t *result, tp_scale_block *block);

typedef struct {
  tp_requantize_backward_params requantize;
  tp_scale_routine *routine; /* where there are multipliers */
  int32_t loop; /* channels that a loop of it takes */
} tp_requantize_backward_dsp_params;

/* A multiple of 4 channels, of a mask 8. */
void tp_requantize_backward_dsp_s16(const tp_requantize_backward_dsp_params *params, const tp_bfp *d_output,
                                    const int8_t *output, tp_bfp *d_acc);
void tp_requantize_backward_mask_dsp_s16(const tp_requantize_backward_dsp_params *params, const tp_bfp *d_output,
                                         const uint8_t *mask, tp_bfp *d_acc);

/* A size that is a multiple of 8. */
void tp_clamp_mask_dsp_s8(const tp_clamp_mask_params *params, const int8_t *output, uint8_t *mask);

/* Sums start from `half` and are shifted right by `shift`. Results of `positions` lie `step` bytes apart. `largest` and
 * `smallest` as of tp_narrow_block. */
typedef struct {
  int32_t half, shift, positions, step;
  uint32_t largest, smallest;
} tp_shifted_dot_block;

/* Generated for the channels: four results of each position. pairs (channels/2,5): what two channels' mantissas are
 * multiplied with for a shift to the right by 15, and four columns. */
typedef void tp_shifted_dot_routine(const int16_t *mantissas, const uint32_t *pairs, int16_t *result,
                                    tp_shifted_dot_block *block);

typedef struct {
  tp_lora_backward_params lora;
  tp_shifted_dot_routine *routine; /* of output_c channels */
} tp_lora_backward_dsp_params;

/* An even number of channels. scratch: Cout/2 * 5 words. */
void tp_lora_backward_hidden_dsp_s16(const tp_lora_backward_dsp_params *params, const tp_bfp *d_acc,
                                     const int8_t *lora_B, const int8_t *lora_shift, const int8_t *hidden_shift,
                                     const int32_t *l1, tp_bfp *d_hidden, void *scratch);

/* The most columns of a tp_correlate_routine. */
#define TP_CORRELATE_COLUMNS 4

/* Generated for shapes: sums[j,c] = start[j] + sum over positions p of columns[p,j] * x[p,c], of two channels, where
 * sums lie as far apart as in a gradient; where a gradient has several chunks, it is added to them. columns: start
 * (count), then of each line of positions pairs of them, (OW/2,count,2), in front of which an odd line has its first
 * position alone, beside 0. Where sums may be wider than int32, the last chunk's are shifted right by `shift`, half up.
 * Returns whether one left int32. */
typedef uint32_t tp_correlate_routine(const void *x, const uint32_t *columns, int32_t *sums, int32_t shift);

typedef struct {
  tp_lora_backward_params lora;
  int32_t block; /* rows that are computed together, an even number, at most 32 */
  int32_t chunk, count; /* positions and columns of the routine; count divides the rank */
  tp_correlate_routine *routine; /* of int16 */
} tp_lora_gradient_dsp_params;

/* tp_gradient_function of a block of rows, two at a time; rows whose sums leave int32, and the last of an odd number,
 * are computed by tp_lora_gradient_b_s32. Behind the gradient, memory for the columns of a chunk. */
int tp_lora_gradient_b_dsp_s32(const void *params, const tp_bfp *d_output, const void *source, int32_t row,
                               int32_t column, int32_t shift, int32_t *gradient);

typedef struct {
  tp_filter_gradient_params filter;
  int32_t count; /* rows that are computed together: columns of the routine */
  int32_t width; /* elements of them that are; all, unless the chunk is */
  int32_t chunk; /* positions of the routine; of a window, rows of them */
  int32_t pitch; /* elements of a row of a window's image with its padding, a multiple of 4 */
  tp_correlate_routine *routine; /* of int8 */
} tp_filter_gradient_dsp_params;

/* tp_gradient_function of `count` rows, an even `width`; rows of which a sum leaves int32 are computed by
 * tp_filter_gradient_wide_s32. A 1x1 window of stride 1 that is all of the input, an even
 * number of channels. Behind the gradient, memory for the columns of a chunk. */
int tp_pointwise_gradient_dsp_s32(const void *params, const tp_bfp *d_output, const void *source, int32_t row,
                                  int32_t column, int32_t shift, int32_t *gradient);

/* The same of all of the rows of a window without dilated columns, over all channels, whose rows have more than one element. Behind the
 * gradient, memory for an int32, the columns of a chunk and the padded rows that it reads. */
int tp_window_gradient_dsp_s32(const void *params, const tp_bfp *d_output, const void *source, int32_t row,
                               int32_t column, int32_t shift, int32_t *gradient);

/* Row y of an image, which may lie outside, with its padding: `pitch` elements from column -pad_left on. */
void tp_padded_row_dsp(const tp_window *w, const int8_t *input, int32_t y, int32_t padding, int32_t pitch,
                       int8_t *row);

#endif
