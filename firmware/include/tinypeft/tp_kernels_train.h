/* Initialisation and optimisers. */
#ifndef TP_KERNELS_TRAIN_H
#define TP_KERNELS_TRAIN_H

#include "tp_types.h"

typedef struct {
  int32_t size;
  float momentum;
} tp_sgd_params;

/* velocity = momentum * velocity + gradient; master -= learning_rate * velocity; both kept within +-TP_MASTER_LIMIT,
 * not a number becomes 0. velocity is NULL where momentum is 0. */
void tp_sgd_f32(const tp_sgd_params *params, const float *gradient, float learning_rate, float *master,
                float *velocity);

typedef struct {
  int32_t size;
} tp_accumulate_params;

/* sum += gradient. */
void tp_accumulate_f32(const tp_accumulate_params *params, const float *gradient, float *sum);

/* mean = sum / count, sum = 0; mean = 0 where count is 0. In place is not allowed. */
void tp_take_mean_f32(const tp_accumulate_params *params, int32_t count, float *sum, float *mean);

typedef struct {
  int32_t size;
  int32_t stream; /* number of the parameter: each draws from a stream of its own */
  float bound;
} tp_initialize_uniform_params;

/* size values in [-bound, bound), determined by seed and stream. */
void tp_initialize_uniform_f32(const tp_initialize_uniform_params *params, int32_t seed, float *master);

typedef struct {
  int32_t size;
  float value;
} tp_initialize_constant_f32_params;

void tp_initialize_constant_f32(const tp_initialize_constant_f32_params *params, float *state);

typedef struct {
  int32_t size;
  int32_t value;
} tp_initialize_constant_s32_params;

void tp_initialize_constant_s32(const tp_initialize_constant_s32_params *params, int32_t *state);

typedef struct {
  int32_t channels, per_channel;
  const float *unit; /* (channels): real value of one integer step */
} tp_initialize_from_base_params;

/* master[c,i] = weights[c,i] * unit[c]. */
void tp_initialize_from_base_s8(const tp_initialize_from_base_params *params, const int8_t *weights, float *master);
void tp_initialize_from_base_s32(const tp_initialize_from_base_params *params, const int32_t *weights, float *master);

#endif
