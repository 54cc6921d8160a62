#include "tinypeft/tp_arithmetic.h"
#include "tinypeft/tp_kernels.h"

/* The first state of a stream of random numbers, never 0. */
static uint32_t stream_state(int32_t seed, int32_t stream) {
  const uint32_t mixed = ((uint32_t)seed + 1u) * 2654435761u + ((uint32_t)stream + 1u) * 2246822519u;
  return mixed != 0u ? mixed : 1u;
}

void tp_initialize_uniform_f32(const tp_initialize_uniform_params *params, int32_t seed, float *master) {
  tp_uniform_f32(stream_state(seed, params->stream), master, params->size, params->bound);
}

void tp_initialize_normal_f32(const tp_initialize_normal_params *params, int32_t seed, float *master) {
  uint32_t state = stream_state(seed, params->stream);
  for (int32_t i = 0; i < params->size; i++) {
    int32_t total = -6 * 0xFFFFFF;
    for (int32_t k = 0; k < 12; k++) {
      state = tp_xorshift32(state);
      total += (int32_t)(state >> 8);
    }
    const float unit = (float)total * tp_exp2i(-24);
    master[i] = unit * params->deviation;
  }
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

void tp_initialize_from_table_f32(const tp_initialize_from_table_params *params, const float *table, float *master) {
  memcpy(master, table, (size_t)params->size * sizeof *master);
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
