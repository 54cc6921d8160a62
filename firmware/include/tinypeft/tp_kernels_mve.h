/* Kernels for cores with Helium (M-profile vector extension, integers): same results, to the bit, as the portable
 * ones. Layouts of activations, offsets and clamps as in tp_kernels_conv.h. Tables are packed by the compiler; those
 * of bytes are declared as int32_t for their alignment. Multipliers are those of tp_requantize, shifts at most 0. */
#ifndef TP_KERNELS_MVE_H
#define TP_KERNELS_MVE_H

#include "tp_kernels_backward.h"
#include "tp_kernels_binary.h"
#include "tp_kernels_conv.h"
#include "tp_kernels_pool.h"
#include "tp_kernels_reduce.h"

/* How accumulators become outputs. With `ties` the output range is that of int8, and a negative tie in the second
 * rounding goes away from zero; without, such a tie is below the clamp. */
typedef struct {
  int32_t output_offset;
  int32_t activation_min, activation_max;
  int32_t ties;
} tp_output_mve;

typedef struct {
  tp_window window;
  int32_t padding;   /* what taps outside the image hold: the input's zero point */
  int32_t row_bytes; /* KH*KW*Cin, rounded up to a multiple of 16 */
  int32_t block;     /* positions gathered at a time */
  int32_t direct;    /* whether the input is such rows as it lies: then nothing is gathered */
  int32_t rank;      /* of a LoRA */
  tp_output_mve output;
} tp_conv_mve_params;

/* tp_conv_s8 of one group without a LoRA. bias (Cout) holds -zero_point * sum filter too. scratch: row_bytes times
 * `block`, which is at least 4, and 16 bytes; a position is read before its outputs and those behind it are written. If
 * direct: none, and output must not lie over input.
 * Narrow: row_bytes <= 64, filter int8 (Cout,row_bytes), zeros at the ends of rows. */
void tp_conv_narrow_mve_s8(const tp_conv_mve_params *params, const int8_t *input, const int32_t *filter,
                           const int32_t *bias, const int32_t *multiplier, const int32_t *shift, int8_t *output,
                           void *scratch);
/* Wide: filter int8 (Cout/2,row_bytes/16,2,16), an odd last channel beside the one before it once more; Cout > 1. With
 * ties no shift is 0. */
void tp_conv_wide_mve_s8(const tp_conv_mve_params *params, const int8_t *input, const int32_t *filter,
                         const int32_t *bias, const int32_t *multiplier, const int32_t *shift, int8_t *output,
                         void *scratch);

/* The same with a LoRA: hidden (OH,OW,rank), lora_B (Cout,rank), lora_shift (Cout). Of the narrow one the output range
 * is that of int8. scratch, behind what it is without: for each group of 4, of the wide one 3, positions of `block`,
 * rounded up, 8 bytes a rank, and 16 bytes, of the wide one 32. */
void tp_conv_narrow_lora_mve_s8(const tp_conv_mve_params *params, const int8_t *input, const int32_t *filter,
                                const int32_t *bias, const int32_t *multiplier, const int32_t *shift,
                                const int16_t *hidden, const int8_t *lora_B, const int8_t *lora_shift, int8_t *output,
                                void *scratch);
void tp_conv_wide_lora_mve_s8(const tp_conv_mve_params *params, const int8_t *input, const int32_t *filter,
                              const int32_t *bias, const int32_t *multiplier, const int32_t *shift,
                              const int16_t *hidden, const int8_t *lora_B, const int8_t *lora_shift, int8_t *output,
                              void *scratch);

/* A row (KH,KW,Cin) of inputs for each of `count` positions from `first` on, row_bytes apart. Up to 16 bytes behind the
 * taps of the last are written. */
void tp_gather_rows_mve_s8(const tp_conv_mve_params *params, const int8_t *input, int32_t first, int32_t count,
                           int8_t *rows);

typedef struct {
  int32_t positions;
  int32_t input_c, output_c;
  int32_t row_bytes; /* input_c, rounded up to a multiple of 16 */
  int32_t rank;      /* of a LoRA */
  int32_t output_offset;
  int32_t activation_min, activation_max;
} tp_fully_connected_mve_params;

/* tp_fully_connected_s8 without a LoRA. filter int8 (Cout/4,row_bytes/16,4,16); bias, multiplier and shift of as many
 * channels, zeros behind the last. bias holds -zero_point * sum filter too; a shift here is that of tp_requantize + 1,
 * at most -1, and no product of accumulator and multiplier a multiple of 2^32 but 0. scratch: row_bytes, or NULL where
 * output does not lie over input and input_c is row_bytes. */
void tp_fully_connected_mve_s8(const tp_fully_connected_mve_params *params, const int8_t *input, const int32_t *filter,
                               const int32_t *bias, const int32_t *multiplier, const int32_t *shift, int8_t *output,
                               void *scratch);

/* The same with a LoRA: hidden (positions,rank), lora_B (Cout,rank), lora_shift (Cout). */
void tp_fully_connected_lora_mve_s8(const tp_fully_connected_mve_params *params, const int8_t *input,
                                    const int32_t *filter, const int32_t *bias, const int32_t *multiplier,
                                    const int32_t *shift, const int16_t *hidden, const int8_t *lora_B,
                                    const int8_t *lora_shift, int8_t *output, void *scratch);

/* tp_lora_down_s8; `block` of the parameters is 1, `rank` and `output` are not read. scratch: row_bytes and 16 bytes,
 * then 4 bytes a rank, rounded up to a multiple of 16. */
void tp_lora_down_mve_s8(const tp_conv_mve_params *params, const int8_t *input, const int8_t *lora_A,
                         const int8_t *hidden_shift, int16_t *hidden, void *scratch);

typedef struct {
  tp_window window; /* KH <= 4, stride_h <= 4, no dilation; KW <= 3 at a stride_w of 1, else <= 4; output_w >= 2 */
  int32_t padding;
  int32_t channels; /* at a time: all, or a divisor of theirs that is a multiple of 16 */
  int32_t rows;     /* output rows at a time */
  int32_t groups;   /* of four outputs in `rows` rows, the first perhaps with outputs of the second */
  tp_output_mve output;
} tp_depthwise_mve_params;

/* tp_depthwise_conv_s8 of as many output as input channels. filter int8 (C,2,4,4) at a stride_w of 1, the second with
 * its taps moved by one to the right, else (C,4,4). bias holds -zero_point * sum filter too. scratch: 16 bytes a
 * group, five pixels, in all at least four windows before the first one; then words of four columns for each window,
 * channel and input row of `rows` rows and `channels` channels, see the source. Rows are written when all that they
 * read has been; at a stride_h of 1 all, too, that later windows read of the rows of the same numbers or above. */
void tp_depthwise_conv_mve_s8(const tp_depthwise_mve_params *params, const int8_t *input, const int32_t *filter,
                              const int32_t *bias, const int32_t *multiplier, const int32_t *shift, int8_t *output,
                              void *scratch);

typedef struct {
  int32_t size;
  int32_t input1_offset, input2_offset;
  int32_t scaled;            /* 1 or 2: that operand has the multiplier and the shift below; 0: neither */
  int32_t multiplier, shift; /* of the other one 1/2 */
  int32_t output_offset, output_multiplier, output_shift;
  int32_t activation_min, activation_max;
  int32_t ties; /* 0 where activation_min is the output's zero point or above it */
} tp_add_mve_params;

/* tp_add_s8 and tp_sub_s8 of operands of one shape, of a left_shift of 20. Shifts are below 0. In place allowed. */
void tp_add_mve_s8(const tp_add_mve_params *params, const int8_t *input1, const int8_t *input2, int8_t *output);
void tp_sub_mve_s8(const tp_add_mve_params *params, const int8_t *input1, const int8_t *input2, int8_t *output);

/* tp_average_pool_s8 and tp_max_pool_s8; output may lie in front of input as there. */
void tp_average_pool_mve_s8(const tp_pool_params *params, const int8_t *input, int8_t *output);
void tp_max_pool_mve_s8(const tp_pool_params *params, const int8_t *input, int8_t *output);

/* tp_mean_s8, with a shift of at most 0. */
void tp_mean_mve_s8(const tp_mean_params *params, const int8_t *input, int8_t *output);

/* Gradients have 16 bits. */
typedef struct {
  tp_window window;
  int32_t pointwise; /* whether the window is 1x1 with a stride of 1 and no padding */
  int32_t l1;        /* largest sum of |filter| over one input channel */
  int32_t chunks;    /* of 8 values: KH*KW*Cout / 8, rounded up */
} tp_conv_backward_mve_params;

/* tp_conv_backward_input_s16 of one group and a constant filter, int8 (Cin/4,chunks,4,8), of which each row is
 * (KH,KW,Cout) and zeros. column: scratch of 16 bytes a chunk. In place where that is. */
void tp_conv_backward_input_mve_s16(const tp_conv_backward_mve_params *params, const tp_bfp *d_acc,
                                    const int32_t *filter, const tp_bfp *addend, tp_bfp *d_input, void *column);

/* tp_depthwise_conv_backward_input_s16 of as many output as input channels, not in place.
 * scratch: 8*KH*KW bytes. */
void tp_depthwise_conv_backward_input_mve_s16(const tp_conv_backward_params *params, const tp_bfp *d_acc,
                                              const int8_t *filter, tp_bfp *d_input, void *scratch);

/* tp_conv_backward_input_s16 of a 1x1 window with a stride of 1 and no padding, of one group, and a filter (Cout,Cin)
 * of the device's own, as that of a LoRA. In place where that is. scratch: 4*Cout bytes. */
void tp_conv_backward_rows_mve_s16(const tp_conv_backward_params *params, const tp_bfp *d_acc, const int8_t *filter,
                                   const int32_t *l1, const tp_bfp *addend, tp_bfp *d_input, void *scratch);

/* tp_requantize_backward_s16 and its like. Those with a mask are for multiples of 8 channels. In place allowed. */
void tp_requantize_backward_mve_s16(const tp_requantize_backward_params *params, const tp_bfp *d_output,
                                    const int8_t *output, tp_bfp *d_acc);
void tp_requantize_backward_mask_mve_s16(const tp_requantize_backward_params *params, const tp_bfp *d_output,
                                         const uint8_t *mask, tp_bfp *d_acc);
void tp_channel_scale_backward_mve_s16(const tp_requantize_backward_params *params, const tp_bfp *d_output,
                                       const int16_t *multiplier, const int32_t *exponent, tp_bfp *d_acc);

/* tp_gradient_function: tp_filter_gradient_wide_s32 of a 1x1 window with a stride of 1 and no padding, whose rows read
 * all channels, and tp_lora_gradient_b_s32. */
int tp_filter_gradient_mve_s32(const void *params, const tp_bfp *d_output, const void *source, int32_t row,
                               int32_t column, int32_t shift, int32_t *gradient);
int tp_lora_gradient_b_mve_s32(const void *params, const tp_bfp *d_output, const void *source, int32_t row,
                               int32_t column, int32_t shift, int32_t *gradient);

/* tp_lora_backward_hidden_s16. */
void tp_lora_backward_hidden_mve_s16(const tp_lora_backward_params *params, const tp_bfp *d_acc, const int8_t *lora_B,
                                     const int8_t *lora_shift, const int8_t *hidden_shift, const int32_t *l1,
                                     tp_bfp *d_hidden, void *scratch);

#endif
