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

/* Generated for the number of rows and of channels: result (4,channels) = columns x filter. columns (rows/2,4,2), half
 * a pair more of an odd number of rows, filter (rows,channels). */
typedef void tp_column_routine(const uint32_t *columns, const int8_t *filter, int16_t *result, tp_narrow_block *to);

typedef struct {
  tp_conv_backward_params conv;
  tp_column_routine *routine; /* of Cout*KH*KW rows and Cin channels; it adds where there is an addend */
  const int32_t *packed; /* the filter as a routine for packed ones takes it: a word of two rows and two channels, all
                          * rows of two channels first; NULL: as it lies */
} tp_conv_backward_dsp_params;

/* One group. scratch: 4*KH*KW*Cout int16, rounded up to an even number of rows, then 4*Cin int16. */
void tp_conv_backward_input_dsp_s16(const tp_conv_backward_dsp_params *params, const tp_bfp *d_acc,
                                    const int8_t *filter, const int32_t *l1, const tp_bfp *addend, tp_bfp *d_input,
                                    void *scratch);

typedef struct {
  int32_t half, shift; /* as of tp_narrow_block */
  int32_t rows;
} tp_plane_block;

/* Generated for the width and for how far results are apart: a 3x3 filter over a plane (rows+2,width+2 or 3). taps: of
 * each row (0,1) and (1,2), in pairs. */
typedef void tp_plane_routine(const int16_t *plane, int16_t *result, const uint32_t taps[6],
                              const tp_plane_block *block);

typedef struct {
  tp_conv_backward_params conv;
  int32_t band; /* rows that are computed together */
  tp_plane_routine *routine; /* of input_w positions, Cin apart */
} tp_depthwise_backward_dsp_params;

/* 3x3, no dilation, an even number of channels, no multiplier. scratch: (2,band+2,input_w+2 or 3) int16, even. */
void tp_depthwise_conv_backward_input_dsp_s16(const tp_depthwise_backward_dsp_params *params, const tp_bfp *d_acc,
                                              const int8_t *filter, tp_bfp *d_input, void *scratch);

/* A multiple of 4 channels, of a mask 8. */
void tp_requantize_backward_dsp_s16(const tp_requantize_backward_params *params, const tp_bfp *d_output,
                                    const int8_t *output, tp_bfp *d_acc);
void tp_requantize_backward_mask_dsp_s16(const tp_requantize_backward_params *params, const tp_bfp *d_output,
                                         const uint8_t *mask, tp_bfp *d_acc);

/* A size that is a multiple of 8. */
void tp_clamp_mask_dsp_s8(const tp_clamp_mask_params *params, const int8_t *output, uint8_t *mask);

/* An even number of channels. scratch: Cout/2 * 5 words. */
void tp_lora_backward_hidden_dsp_s16(const tp_lora_backward_params *params, const tp_bfp *d_acc, const int8_t *lora_B,
                                     const int8_t *lora_shift, const int8_t *hidden_shift, const int32_t *l1,
                                     tp_bfp *d_hidden, void *scratch);

/* tp_gradient_function. A rank of a multiple of 4. */
int tp_lora_gradient_b_dsp_s32(const void *params, const tp_bfp *d_output, const void *source, int32_t row,
                               int32_t shift, int32_t *gradient);

/* tp_gradient_function. A 1x1 window of stride 1 that is all of the input, a multiple of 4 channels. */
int tp_pointwise_gradient_dsp_s32(const void *params, const tp_bfp *d_output, const void *source, int32_t row,
                                  int32_t shift, int32_t *gradient);

typedef struct {
  tp_filter_gradient_params filter;
  int32_t pitch; /* elements of a row with its padding, a multiple of 4 */
} tp_window_gradient_dsp_params;

/* tp_gradient_function of a window without dilated columns, over all channels. Behind the gradient, memory for the
 * padded image, pitch elements a row, and for pairs of mantissas, (OH,OW/2), half a pair more of odd rows. */
int tp_window_gradient_dsp_s32(const void *params, const tp_bfp *d_output, const void *source, int32_t row,
                               int32_t shift, int32_t *gradient);

/* Row y of an image, which may lie outside, with its padding: `pitch` elements from column -pad_left on. */
void tp_padded_row_dsp(const tp_window *w, const int8_t *input, int32_t y, int32_t padding, int32_t pitch,
                       int8_t *row);

#endif
