#include "tinypeft/tp_arithmetic.h"
#include "tinypeft/tp_kernels.h"

void tp_initialize_uniform_f32(const tp_initialize_uniform_params *params, int32_t seed, float *master) {
  const uint32_t mixed = ((uint32_t)seed + 1u) * 2654435761u + ((uint32_t)params->stream + 1u) * 2246822519u;
  tp_uniform_f32(mixed != 0u ? mixed : 1u, master, params->size, params->bound);
}

void tp_initialize_constant_f32(const tp_initialize_constant_f32_params *params, float *state) {
  for (int32_t i = 0; i < params->size; i++) {
    state[i] = params->value;
  }
}

void tp_initialize_constant_s32(const tp_initialize_constant_s32_params *params, int32_t *state) {
  for (int32_t i = 0; i < params->size; i++) {
    state[i] = params->value;
  }
}

void tp_mark_rows_s8(int32_t rows, int32_t value, int8_t *row_changed) {
  memset(row_changed, value, (size_t)rows);
}

void tp_initialize_zero(const tp_initialize_zero_params *params, void *state) {
  memset(state, 0, (size_t)params->size);
}

void tp_initialize_from_base_s8(const tp_initialize_from_base_params *params, const int8_t *weights, float *master) {
  for (int32_t c = 0; c < params->channels; c++) {
    for (int32_t i = 0; i < params->per_channel; i++) {
      *master++ = (float)*weights++ * params->unit[c];
    }
  }
}

void tp_initialize_from_base_s32(const tp_initialize_from_base_params *params, const int32_t *weights, float *master) {
  for (int32_t c = 0; c < params->channels; c++) {
    for (int32_t i = 0; i < params->per_channel; i++) {
      *master++ = (float)*weights++ * params->unit[c];
    }
  }
}
