#include "tinypeft/tp_kernels_pad.h"

#include <string.h>

#include "tinypeft/tp_arithmetic.h"

void tp_pad_s8(const tp_pad_params *params, const int8_t *input, int8_t *output) {
  const int32_t size = params->padded_h * params->padded_w * params->padded_c;
  memset(output, params->value, (size_t)size);
  for (int32_t y = 0; y < params->h; y++) {
    for (int32_t x = 0; x < params->w; x++) {
      const int32_t pixel = (y + params->top) * params->padded_w + x + params->left;
      memcpy(output + pixel * params->padded_c + params->front, input, (size_t)params->c);
      input += params->c;
    }
  }
}

void tp_pad_backward_s16(const tp_pad_params *params, const tp_bfp16 *d_output, tp_bfp16 *d_input) {
  int16_t *target = d_input->mantissa;
  int32_t peak = 0;
  /* An element moves only towards the front, so reading stays ahead of writing. */
  for (int32_t y = 0; y < params->h; y++) {
    for (int32_t x = 0; x < params->w; x++) {
      const int32_t pixel = (y + params->top) * params->padded_w + x + params->left;
      const int16_t *source = d_output->mantissa + pixel * params->padded_c + params->front;
      for (int32_t c = 0; c < params->c; c++) {
        const int16_t mantissa = source[c];
        peak = tp_max_s32(peak, tp_abs_s32(mantissa));
        *target++ = mantissa;
      }
    }
  }
  d_input->exponent = d_output->exponent;
  d_input->peak = peak;
}
