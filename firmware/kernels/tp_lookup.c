#include "tinypeft/tp_kernels_lookup.h"

#include "tinypeft/tp_arithmetic.h"
#include "tinypeft/tp_narrowing.h"

void tp_lookup_s8(const tp_lookup_params *params, const int8_t *input, int8_t *output) {
  const int8_t *at_zero = params->table + 128;
  for (int32_t i = 0; i < params->size; i++) {
    output[i] = at_zero[input[i]];
  }
}

void tp_lookup_backward_s16(const tp_lookup_backward_params *params, const tp_bfp *d_output, const int8_t *input,
                            tp_bfp *d_input) {
  tp_narrowing to = tp_narrow_within((int64_t)d_output->peak * params->largest);
  const int16_t *at_zero = params->slopes + 128;
  const tp_mantissa *gradient = d_output->mantissa;
  tp_mantissa *target = d_input->mantissa;
  do {
    for (int32_t i = 0; i < params->size; i++) {
      tp_put_mantissa(&to, gradient[i] * at_zero[input[i]], &target[i]);
    }
  } while (tp_next_pass(&to));
  tp_finish(&to, d_output->exponent + params->exponent, d_input);
}
