/* A learned offset of the model's input, int8 in steps of the input's scale. */
#ifndef TP_KERNELS_INPUT_OFFSET_H
#define TP_KERNELS_INPUT_OFFSET_H

#include "tp_types.h"

typedef struct {
  int32_t positions, count;
} tp_input_offset_params;

/* output = input + offset, limited to int8. input, output (positions,count), offset (count). In place allowed. */
void tp_input_offset_s8(const tp_input_offset_params *params, const int8_t *input, const int8_t *offset,
                        int8_t *output);

/* mask bit i (byte i/8, bit i%8): whether element i of that sum is an int8. */
void tp_input_offset_mask_s8(const tp_input_offset_params *params, const int8_t *input, const int8_t *offset,
                             uint8_t *mask);

typedef struct {
  int32_t count;
} tp_input_offset_gradient_params;

/* tp_gradient_function: gradient[i] = d_output[row * count + i]; source and shift are not read. */
int tp_input_offset_gradient_s32(const void *params, const tp_bfp *d_output, const void *source, int32_t row,
                                 int32_t column, int32_t shift, int32_t *gradient);

typedef struct {
  int32_t size;
  float scale; /* of the input */
} tp_input_offset_quantize_params;

/* offset = master / scale, limited to [-127, 127]; and back. */
void tp_input_offset_quantize_f32(const tp_input_offset_quantize_params *params, const float *master, int8_t *offset);
void tp_input_offset_restore_f32(const tp_input_offset_quantize_params *params, const int8_t *offset, float *master);

#endif
