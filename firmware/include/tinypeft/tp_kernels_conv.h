/* Convolution, transposed and depthwise convolution and fully connected, forward.
 * Layouts: activations (H,W,C), conv filters (Cout,KH,KW,Cin), depthwise filters (KH,KW,Cout), batch 1.
 * input_offset = -zero_point of the input, output_offset = +zero_point of the output. */
#ifndef TP_KERNELS_CONV_H
#define TP_KERNELS_CONV_H

#include "tp_types.h"

/* A window that slides over (input_h, input_w) and gives (output_h, output_w). */
typedef struct {
  int32_t input_h, input_w, input_c;
  int32_t output_h, output_w, output_c;
  int32_t kernel_h, kernel_w;
  int32_t stride_h, stride_w;
  int32_t dilation_h, dilation_w;
  int32_t pad_top, pad_left;
} tp_window;

/* The kernel rows (or columns) that fall inside the input for one output coordinate. */
typedef struct {
  int32_t origin; /* input coordinate of tap 0, may be negative */
  int32_t begin, end; /* taps inside the input: begin <= tap < end */
} tp_taps;

static inline tp_taps tp_window_taps(int32_t output, int32_t stride, int32_t pad, int32_t dilation, int32_t kernel,
                                     int32_t input) {
  tp_taps taps = {output * stride - pad, 0, kernel};
  while (taps.begin < kernel && taps.origin + taps.begin * dilation < 0) {
    taps.begin++;
  }
  while (taps.end > taps.begin && taps.origin + (taps.end - 1) * dilation >= input) {
    taps.end--;
  }
  return taps;
}

typedef struct {
  tp_window window;
  int32_t input_offset;
  int32_t output_offset;
  int32_t activation_min, activation_max;
  int32_t rank; /* columns of lora_B; 0: no adapter */
  int32_t filter_c; /* input channels that a filter reads: those of its group */
  int32_t group_c;  /* output channels of a group; with one group all of them */
  int32_t direct;   /* of tp_conv_s8: whether the window is 1x1 and inside the input, which is then read as it lies */
} tp_conv_params;

/* output = clamp(requantize(bias + sum filter*(input + input_offset) [+ (lora_B . hidden) >> lora_shift])), rounded twice.
 * input (H,W,Cin), filter (Cout,KH,KW,filter_c), bias, multiplier, shift (Cout), output (OH,OW,Cout).
 * Output channels g*group_c onwards read input channels g*filter_c onwards.
 * hidden (OH,OW,rank), lora_B (Cout,rank), lora_shift (Cout) are not read where rank is 0.
 * bias holds input_offset * sum filter too. columns: scratch of 2 * KH*KW*filter_c int8; NULL where it reads directly.
 * output may lie in front of input as far as Op.behind says, and overwrite it. */
void tp_conv_s8(const tp_conv_params *params, const int8_t *input, const int8_t *filter, const int32_t *bias,
                const int32_t *multiplier, const int8_t *shift, const int16_t *hidden, const int8_t *lora_B,
                const int8_t *lora_shift, int8_t *output, void *columns);

/* The same where the filter is trained: bias is the bias alone; column: scratch of KH*KW*filter_c int16. */
void tp_conv_trained_s8(const tp_conv_params *params, const int8_t *input, const int8_t *filter, const int32_t *bias,
                        const int32_t *multiplier, const int8_t *shift, const int16_t *hidden, const int8_t *lora_B,
                        const int8_t *lora_shift, int8_t *output, void *column);

/* Transposed: the window is that of the convolution from output to input, of which this is the adjoint. Each output is
 * the clamped, requantised sum of bias and filter*(input + input_offset) over the windows that cover it.
 * input (window.output_h,window.output_w,Cin), filter (Cout,KH,KW,Cin), output (window.input_h,window.input_w,Cout).
 * bias may be NULL. rank and what follows it are not read. column: scratch of KH*KW*Cin int16. */
void tp_transpose_conv_s8(const tp_conv_params *params, const int8_t *input, const int8_t *filter, const int32_t *bias,
                          const int32_t *multiplier, const int8_t *shift, int8_t *output, void *column);

/* Depthwise: input (H,W,C), filter (KH,KW,C*m), output (OH,OW,C*m); channel c*m+j reads input channel c.
 * output may lie in front of input as far as Op.behind says, and overwrite it. */
void tp_depthwise_conv_s8(const tp_conv_params *params, const int8_t *input, const int8_t *filter, const int32_t *bias,
                          const int32_t *multiplier, const int8_t *shift, int8_t *output);

/* The same of as many outputs as inputs, of strides 1 and m = 1, channel by channel: output may be input, or must not
 * overlap it. scratch: int8, a channel with what its windows reach around it,
 * (OH + (KH-1)*dilation_h) * (OW + (KW-1)*dilation_w). */
void tp_depthwise_planes_s8(const tp_conv_params *params, const int8_t *input, const int8_t *filter,
                            const int32_t *bias, const int32_t *multiplier, const int8_t *shift, int8_t *output,
                            void *scratch);

typedef struct {
  int32_t positions; /* rows of input and output */
  int32_t input_c, output_c;
  int32_t input_offset;
  int32_t output_offset;
  int32_t activation_min, activation_max;
  int32_t rank;
  int32_t logit_exponent; /* of tp_dense_logits_s8 */
} tp_fully_connected_params;

/* input (positions,Cin), filter (Cout,Cin), output (positions,Cout); as tp_conv_s8, but rounded once.
 * bias may be NULL. column: scratch of Cin int16 for a filter that is trained, else NULL; bias then holds
 * input_offset * sum filter too. output may lie in front of input as far as Op.behind says, and overwrite it. */
void tp_fully_connected_s8(const tp_fully_connected_params *params, const int8_t *input, const int8_t *filter,
                           const int32_t *bias, const int32_t *multiplier, const int8_t *shift, const int16_t *hidden,
                           const int8_t *lora_B, const int8_t *lora_shift, int8_t *output, int16_t *column);

/* The same accumulators as fixed point: logits[c] * 2^logit_exponent = acc[c] * scale[c], rounded half up, saturated.
 * Integers throughout: only the bits of scale are read. */
void tp_dense_logits_s8(const tp_fully_connected_params *params, const int8_t *input, const int8_t *filter,
                        const int32_t *bias, const float *scale, const int16_t *hidden, const int8_t *lora_B,
                        const int8_t *lora_shift, int32_t *logits, int16_t *column);

typedef struct {
  tp_window window; /* output_c is the rank */
  int32_t input_offset;
  int32_t pointwise; /* whether the window is 1x1 and never leaves the input */
} tp_lora_down_params;

/* hidden = (sum lora_A * (input + input_offset)) >> hidden_shift, rounded half up; the shift rules saturation out.
 * lora_A (r,KH,KW,Cin), hidden_shift (1), hidden (OH,OW,r). */
void tp_lora_down_s8(const tp_lora_down_params *params, const int8_t *input, const int8_t *lora_A,
                     const int8_t *hidden_shift, int16_t *hidden);

typedef struct {
  int32_t rows, row_size;
} tp_int4_params;

/* int4 is two values a byte, the first in the low nibble. Unpacked, row r is multiplier[r] times its values; packing
 * takes multiples of it, at most 7 times. */
void tp_pack_int4_s8(const tp_int4_params *params, const int8_t *values, const int8_t *multiplier, uint8_t *packed);
void tp_unpack_int4_s8(const tp_int4_params *params, const uint8_t *packed, const int8_t *multiplier, int8_t *output);

/* merged_filter = clamp(filter + (B A >> hidden_shift + lora_shift)), the scales of the filter kept: filter and
 * merged_filter (Cout,KH,KW,Cin), lora_A (r,KH,KW,Cin), hidden_shift (1), lora_B (Cout,r), lora_shift (Cout). Where
 * merged_bias (Cout) is not NULL: bias less zero_point times what was added to its filter. */
typedef struct {
  int32_t rank, fan_in, output_c, zero_point;
} tp_lora_merge_params;

void tp_lora_merge_s8(const tp_lora_merge_params *params, const int8_t *filter, const int8_t *lora_A,
                      const int8_t *hidden_shift, const int8_t *lora_B, const int8_t *lora_shift, const int32_t *bias,
                      int8_t *merged_filter, int32_t *merged_bias);

#endif
