/* Convolution, depthwise convolution and fully connected: forward and backward.
 * Layouts: activations (H,W,C), conv filters (Cout,KH,KW,Cin), depthwise filters (KH,KW,C), batch 1.
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

typedef struct {
  tp_window window;
  int32_t input_offset;
  int32_t output_offset;
  int32_t activation_min, activation_max;
  int32_t rank; /* columns of lora_B; 0: no adapter */
} tp_conv_params;

/* output = clamp(requantize(bias + sum filter * (input + input_offset) [+ (lora_B . hidden) >> lora_shift])).
 * filter (Cout,KH,KW,Cin); bias, multiplier, shift (Cout). bias may be NULL.
 * hidden (OH,OW,r), lora_B (Cout,r) and lora_shift (Cout) are NULL where rank is 0. */
void tp_conv_s8(const tp_conv_params *params, const int8_t *input, const int8_t *filter, const int32_t *bias,
                const int32_t *multiplier, const int32_t *shift, const int16_t *hidden, const int8_t *lora_B,
                const int8_t *lora_shift, int8_t *output);

#endif
