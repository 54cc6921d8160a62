#include "tinypeft/tp_arithmetic.h"
#include "tinypeft/tp_kernels.h"

#define SIXTH 5461.3335f /* 2^15 / 6 */

void tp_hidden_gate_f32(const tp_hidden_gate_params *params, const float *a_scale, const int8_t *hidden_shift,
                        int16_t *gate) {
  const float unit = params->input_scale * a_scale[0];
  const float scaled = unit * tp_exp2i(hidden_shift[0]);
  const float sixth = scaled * SIXTH;
  const int32_t exponent = tp_float_exponent(sixth);
  const float multiplier = sixth * tp_exp2i(14 - exponent);
  gate[0] = (int16_t)tp_min_s32(tp_round_to_s32(multiplier), 32767);
  gate[1] = (int16_t)tp_clamp_s32(14 - exponent, 0, 30);
}
