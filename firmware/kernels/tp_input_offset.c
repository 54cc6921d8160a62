#include "tinypeft/tp_arithmetic.h"
#include "tinypeft/tp_kernels.h"

void tp_input_offset_s8(const tp_input_offset_params *params, const int8_t *input, const int8_t *offset,
                        int8_t *output) {
  for (int32_t p = 0; p < params->positions; p++) {
    for (int32_t i = 0; i < params->count; i++) {
      *output++ = (int8_t)tp_clamp_s32(*input++ + offset[i], INT8_MIN, INT8_MAX);
    }
  }
}

void tp_input_offset_mask_s8(const tp_input_offset_params *params, const int8_t *input, const int8_t *offset,
                             uint8_t *mask) {
  const int32_t size = params->positions * params->count;
  memset(mask, 0, (size_t)(size + 7) / 8);
  int32_t element = 0;
  for (int32_t p = 0; p < params->positions; p++) {
    for (int32_t i = 0; i < params->count; i++) {
      const int32_t sum = input[element] + offset[i];
      if (sum >= INT8_MIN && sum <= INT8_MAX) {
        mask[element / 8] = (uint8_t)(mask[element / 8] | (1u << (element % 8)));
      }
      element++;
    }
  }
}

int tp_input_offset_gradient_s32(const void *params, const tp_bfp *d_output, const void *source, int32_t row,
                                 int32_t column, int32_t shift, int32_t *gradient) {
  const tp_input_offset_gradient_params *p = params;
  const tp_mantissa *mantissa = d_output->mantissa + row * p->count;
  int32_t any = 0;
  (void)source, (void)column;
  (void)shift; /* mantissas are no sums */
  for (int32_t i = 0; i < p->count; i++) {
    gradient[i] = mantissa[i];
    any |= mantissa[i];
  }
  return any != 0;
}
