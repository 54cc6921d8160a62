/* Gradients of the layers with weights, and of their clamps. Gradients are tp_bfp in real units; an output's
 * mantissa pointer is set by the caller, its exponent and peak by the kernel. Names end in _s16 where mantissas have 8
 * bits, too; such kernels run twice, see tp_narrowing.h. */
#ifndef TP_KERNELS_BACKWARD_H
#define TP_KERNELS_BACKWARD_H

#include "tp_kernels_conv.h"

typedef struct {
  int32_t positions, channels;
  int32_t activation_min, activation_max;
  const int16_t *multiplier; /* scale of channel c = multiplier[c] * 2^exponent; NULL: scales are 1 */
  int32_t exponent;
} tp_requantize_backward_params;

/* d_acc[p,c] = d_output[p,c] * scale[c] where activation_min < output[p,c] < activation_max, else 0.
 * In place allowed. */
void tp_requantize_backward_s16(const tp_requantize_backward_params *params, const tp_bfp *d_output,
                                const int8_t *output, tp_bfp *d_acc);
/* The same from a mask made by tp_clamp_mask_s8. */
void tp_requantize_backward_mask_s16(const tp_requantize_backward_params *params, const tp_bfp *d_output,
                                     const uint8_t *mask, tp_bfp *d_acc);
/* No clamp; the channel scales are run-time values: multiplier (channels), exponent (1). */
void tp_channel_scale_backward_s16(const tp_requantize_backward_params *params, const tp_bfp *d_output,
                                   const int16_t *multiplier, const int32_t *exponent, tp_bfp *d_acc);

typedef struct {
  int32_t size;
  int32_t activation_min, activation_max;
} tp_clamp_mask_params;

/* mask bit i (byte i/8, bit i%8) = activation_min < output[i] < activation_max. */
void tp_clamp_mask_s8(const tp_clamp_mask_params *params, const int8_t *output, uint8_t *mask);

typedef struct {
  tp_window window;
  int32_t l1; /* largest sum of |filter| over one input channel */
  int32_t filter_c, group_c; /* of a convolution: as in tp_conv_params */
  const int16_t *first_channel; /* (Cout): the first input channel that each output channel reads, ascending multiples
                                 * of filter_c, instead of groups of group_c; NULL: those */
} tp_conv_backward_params;

/* d_input = sum filter * d_acc [+ addend]. d_acc (OH,OW,Cout), filter (Cout,KH,KW,filter_c), d_input (H,W,Cin).
 * l1 (1): used instead of params->l1 unless NULL. addend may be NULL or of d_input's shape, and may be d_input's own
 * buffer. For 1x1 windows of stride 1 with Cin <= Cout, d_input may be d_acc's buffer.
 * column: scratch of KH*KW*group_c int16, or of the most output channels that read the same. */
void tp_conv_backward_input_s16(const tp_conv_backward_params *params, const tp_bfp *d_acc, const int8_t *filter,
                                const int32_t *l1, const tp_bfp *addend, tp_bfp *d_input, void *column);

/* Transposed convolution: the window is as in tp_transpose_conv_s8. d_acc (window.input_h,window.input_w,Cout), filter
 * (Cout,KH,KW,Cin), d_input (window.output_h,window.output_w,Cin). column: scratch of KH*KW*Cout int16. */
void tp_transpose_conv_backward_input_s16(const tp_conv_backward_params *params, const tp_bfp *d_acc,
                                          const int8_t *filter, tp_bfp *d_input, void *column);

/* Depthwise: d_acc (OH,OW,C*m), filter (KH,KW,C*m), d_input (H,W,C). In place allowed where stride is 1, m is 1 and
 * input and output have the same height and width. scratch: 8*KH*KW bytes, and in place (KH-1)*dilation+1 rows of
 * d_acc behind them. */
void tp_depthwise_conv_backward_input_s16(const tp_conv_backward_params *params, const tp_bfp *d_acc,
                                          const int8_t *filter, tp_bfp *d_input, void *scratch);

typedef struct {
  tp_window window;
  int32_t input_offset;
  int32_t filter_c;             /* input channels that a row reads */
  const int16_t *first_channel; /* (Cout): the first of them; NULL: 0 */
} tp_filter_gradient_params;

/* tp_gradient_function: d_filter[row] = sum over positions of d_output[.,row] * (source + input_offset).
 * d_output (OH,OW,Cout), source int8 (H,W,Cin), a row is (KH,KW,filter_c). The first is for sums that int32 holds, whatever
 * the mantissas, and the last for one tap and one position. */
int tp_filter_gradient_s32(const void *params, const tp_bfp *d_output, const void *source, int32_t row, int32_t column,
                           int32_t shift, int32_t *gradient);
int tp_filter_gradient_wide_s32(const void *params, const tp_bfp *d_output, const void *source, int32_t row,
                                int32_t column, int32_t shift, int32_t *gradient);
int tp_dense_gradient_s32(const void *params, const tp_bfp *d_output, const void *source, int32_t row, int32_t column,
                          int32_t shift, int32_t *gradient);

typedef struct {
  int32_t positions, channels;
} tp_position_sum_params;

/* tp_gradient_function of a vector: d_bias[c] = sum over positions of d_output[p,c]. source is not read. */
int tp_bias_gradient_s32(const void *params, const tp_bfp *d_output, const void *source, int32_t row, int32_t column,
                         int32_t shift, int32_t *gradient);

typedef struct {
  int32_t size;
} tp_gradient_add_params;

/* sum = a + b, elementwise; in place on either allowed. */
void tp_gradient_add_s16(const tp_gradient_add_params *params, const tp_bfp *a, const tp_bfp *b, tp_bfp *sum);

typedef struct {
  int32_t rank, fan_in, input_c, output_c;
  int32_t input_range; /* largest |input + input_offset| */
  int32_t acc_bound;   /* largest |accumulator| of the base layer */
  const float *b_unit; /* (Cout): lora_alpha / r / filter scale */
} tp_lora_quantize_params;

/* Quantise a LoRA: A to int8 with one scale, B per output channel so that (B . hidden) >> lora_shift is in units of
 * the accumulator. master_A (r,KH,KW,Cin), master_B (Cout,r); hidden_shift (1) keeps the hidden values inside int16,
 * lora_shift (Cout) the accumulator inside int32. a_scale (1). For the backward pass l1 (2), norms of A and B, and
 * gradient_unit (2), what their gradients are multiplied by. a_multiplier (r) and b_multiplier (Cout), both or neither
 * NULL: then each row is its multiplier times values of 4 bits. */
void tp_lora_quantize_f32(const tp_lora_quantize_params *params, const float *master_A, const float *master_B,
                          int8_t *lora_A, int8_t *hidden_shift, int8_t *lora_B, int8_t *lora_shift, float *a_scale,
                          int32_t *l1, float *gradient_unit, int8_t *a_multiplier, int8_t *b_multiplier);

/* The masters that an adapter's integers stand for, norms and units; the integers stay as they are. */
void tp_lora_restore_f32(const tp_lora_quantize_params *params, const int8_t *lora_A, const int8_t *hidden_shift,
                         const int8_t *lora_B, const int8_t *lora_shift, const float *a_scale, float *master_A,
                         float *master_B, int32_t *l1, float *gradient_unit);

/* The same with A and B packed as int4; scratch: A and B as int8. */
void tp_lora_quantize_int4_f32(const tp_lora_quantize_params *params, const float *master_A, const float *master_B,
                               uint8_t *lora_A, int8_t *hidden_shift, uint8_t *lora_B, int8_t *lora_shift,
                               float *a_scale, int32_t *l1, float *gradient_unit, int8_t *a_multiplier,
                               int8_t *b_multiplier, void *scratch);
void tp_lora_restore_int4_f32(const tp_lora_quantize_params *params, const uint8_t *lora_A, const int8_t *hidden_shift,
                              const uint8_t *lora_B, const int8_t *lora_shift, const float *a_scale,
                              const int8_t *a_multiplier, const int8_t *b_multiplier, float *master_A, float *master_B,
                              int32_t *l1, float *gradient_unit, void *scratch);

typedef struct {
  int32_t positions, rank, output_c;
} tp_lora_backward_params;

/* d_hidden[p,r] = sum_c d_acc[p,c] * B[c,r], in units of the hidden value over lora_A's scale.
 * scratch: Cout int8. */
void tp_lora_backward_hidden_s16(const tp_lora_backward_params *params, const tp_bfp *d_acc, const int8_t *lora_B,
                                 const int8_t *lora_shift, const int8_t *hidden_shift, const int32_t *l1,
                                 tp_bfp *d_hidden, void *scratch);

/* tp_gradient_function: d_b[row,r] = sum_p d_output[p,row] * hidden[p,r]; source is hidden, int16 (positions,rank). */
int tp_lora_gradient_b_s32(const void *params, const tp_bfp *d_output, const void *source, int32_t row, int32_t column,
                           int32_t shift, int32_t *gradient);

typedef struct {
  int32_t row_size, output_c;
  float input_scale;
  float output_scale;
  int32_t output_zero_point;
  int32_t logit_exponent;
  const float *filter_scale;       /* (Cout) of the base layer: the finest scale used */
  const int32_t *base_multiplier;  /* (Cout) */
  const int8_t *base_shift;        /* (Cout) */
} tp_dense_quantize_params;

/* Quantise a retrained layer per output channel. master_filter (Cout,row_size), master_bias (Cout); logit_range (2), the
 * smallest and largest logit seen in steps of 2^logit_exponent, and output_shift (1) are NULL but for a classifier.
 * multiplier, shift (Cout): to int8 of scale output_scale * 2^output_shift[0]; logit_scale (Cout), what a step of the
 * accumulator is worth, and fold_multiplier (Cout), fold_exponent (1), filter scales for the backward pass, are NULL
 * where nothing reads them. row_changed (Cout), see tp_kernels_train.h: channels that are TP_ROW_CLEAN are left as they
 * are; all are clean afterwards. growth (Cout): scale = filter_scale * 2^(growth / 4); what follows from it alone is
 * computed where it changes, and for TP_ROW_WRITTEN. */
void tp_dense_quantize_f32(const tp_dense_quantize_params *params, const float *master_filter,
                           const float *master_bias, const int32_t *logit_range, int8_t *filter, int32_t *bias,
                           int32_t *multiplier, int8_t *shift, int8_t *output_shift, float *logit_scale,
                           int16_t *fold_multiplier, int32_t *fold_exponent, int8_t *row_changed, int8_t *growth);

typedef struct {
  tp_dense_quantize_params quantize;
  int32_t input_offset;
  float scale; /* of source */
} tp_dense_retrain_params;

/* SGD on a retrained dense layer of one position, master_filter[c,k] -= (source[k] + input_offset) * (d_output[c] *
 * (learning_rate * scale)), and tp_dense_quantize_f32; only what changes is computed. scratch: row_size float and
 * row_size uint16. */
void tp_dense_retrain_f32(const tp_dense_retrain_params *params, const tp_bfp *d_output, const int8_t *source,
                          float learning_rate, float *master_filter, const float *master_bias,
                          const int32_t *logit_range, int8_t *filter, int32_t *bias, int32_t *multiplier, int8_t *shift,
                          int8_t *output_shift, float *logit_scale, int16_t *fold_multiplier, int32_t *fold_exponent,
                          int8_t *row_changed, int8_t *growth, void *scratch);

/* The masters that a retrained layer's integers stand for, and what the backward pass derives from them. */
void tp_dense_restore_f32(const tp_dense_quantize_params *params, const int8_t *filter, const int32_t *bias,
                          const int8_t *growth, const int8_t *output_shift, float *master_filter, float *master_bias,
                          int32_t *logit_range, int16_t *fold_multiplier, int32_t *fold_exponent);

#endif
