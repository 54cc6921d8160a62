/* Elementwise functions of one int8 tensor, by tables made beforehand, and their gradient. Tables go from -128 to 127. */
#ifndef TP_KERNELS_LOOKUP_H
#define TP_KERNELS_LOOKUP_H

#include "tp_types.h"

typedef struct {
  int32_t size;
  const int8_t *table; /* 256 */
} tp_lookup_params;

/* output = table[input + 128]. In place allowed. */
void tp_lookup_s8(const tp_lookup_params *params, const int8_t *input, int8_t *output);

typedef struct {
  int32_t size;
  const int16_t *slopes; /* 256: derivative = slopes[input + 128] * 2^exponent */
  int32_t largest;       /* |slope| */
  int32_t exponent;
} tp_lookup_backward_params;

/* d_input = d_output * derivative at `input`. In place on d_output allowed. */
void tp_lookup_backward_s16(const tp_lookup_backward_params *params, const tp_bfp *d_output, const int8_t *input,
                            tp_bfp *d_input);

#endif
