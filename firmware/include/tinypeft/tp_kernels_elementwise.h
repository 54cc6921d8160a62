/* Quantisation and dequantisation. input_offset = -zero_point of the input, output_offset = +zero_point of the output;
 * multiplier and shift as in tp_requantize. */
#ifndef TP_KERNELS_ELEMENTWISE_H
#define TP_KERNELS_ELEMENTWISE_H

#include "tp_types.h"

typedef struct {
  int32_t size;
  float scale;
  int32_t zero_point;
} tp_quantize_params;

/* output = input / scale, rounded half away from zero, + zero_point, saturated. Not a number gives -128. */
void tp_quantize_f32_s8(const tp_quantize_params *params, const float *input, int8_t *output);

/* output = scale * (input - zero_point). input_shift (1) or NULL: the scale is larger by 2^input_shift[0]. */
void tp_dequantize_s8_f32(const tp_quantize_params *params, const int8_t *input, const int8_t *input_shift,
                          float *output);

typedef struct {
  int32_t size;
  int32_t input_offset, output_offset;
  int32_t multiplier, shift; /* input scale / output scale */
} tp_requantize_params;

/* output = requantize(input + input_offset) + output_offset, saturated; in place allowed. */
void tp_requantize_s8(const tp_requantize_params *params, const int8_t *input, int8_t *output);

#endif
