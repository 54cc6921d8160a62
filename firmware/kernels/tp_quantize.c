#include "tinypeft/tp_kernels_elementwise.h"

#include "tinypeft/tp_arithmetic.h"

/* Beyond this every zero point saturates. */
#define FAR_OUTSIDE 512.0f

void tp_quantize_f32_s8(const tp_quantize_params *params, const float *input, int8_t *output) {
  for (int32_t i = 0; i < params->size; i++) {
    float x = input[i] / params->scale;
    x = x > -FAR_OUTSIDE ? x : -FAR_OUTSIDE; /* in this order, so that not-a-number is caught */
    x = x < FAR_OUTSIDE ? x : FAR_OUTSIDE;
    int32_t rounded = (int32_t)x;
    const float rest = x - (float)rounded;
    if (rest >= 0.5f) {
      rounded++;
    } else if (rest <= -0.5f) {
      rounded--;
    }
    output[i] = (int8_t)tp_clamp_s32(rounded + params->zero_point, INT8_MIN, INT8_MAX);
  }
}

void tp_dequantize_s8_f32(const tp_quantize_params *params, const int8_t *input, const int8_t *input_shift,
                          float *output) {
  const float scale = params->scale * tp_exp2i(input_shift != NULL ? input_shift[0] : 0);
  for (int32_t i = 0; i < params->size; i++) {
    output[i] = scale * (float)(input[i] - params->zero_point);
  }
}

void tp_requantize_s8(const tp_requantize_params *params, const int8_t *input, int8_t *output) {
  for (int32_t i = 0; i < params->size; i++) {
    const int32_t scaled = tp_requantize(input[i] + params->input_offset, params->multiplier, params->shift);
    output[i] = (int8_t)tp_clamp_s32(scaled + params->output_offset, INT8_MIN, INT8_MAX);
  }
}
