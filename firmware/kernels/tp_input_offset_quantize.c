#include "tinypeft/tp_arithmetic.h"
#include "tinypeft/tp_kernels.h"

void tp_input_offset_quantize_f32(const tp_input_offset_quantize_params *params, const float *master, int8_t *offset) {
  for (int32_t i = 0; i < params->size; i++) {
    const float steps = tp_limit_f32(master[i], TP_MASTER_LIMIT) / params->scale;
    offset[i] = (int8_t)tp_clamp_s32(tp_round_to_s32(steps), -127, 127);
  }
}

void tp_input_offset_restore_f32(const tp_input_offset_quantize_params *params, const int8_t *offset, float *master) {
  for (int32_t i = 0; i < params->size; i++) {
    master[i] = (float)offset[i] * params->scale;
  }
}
