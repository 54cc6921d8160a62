/* Initialisation and loss. */
#ifndef TP_KERNELS_TRAIN_H
#define TP_KERNELS_TRAIN_H

#include "tp_types.h"

typedef struct {
  int32_t classes;
} tp_cross_entropy_params;

/* loss = log(sum exp(logits)) - logits[label]; d_logits = softmax(logits) - onehot(label). 0 <= label < classes.
 * logit_range (2): the smallest and largest logit seen, updated; may be NULL. exponentials: scratch of `classes`. */
void tp_softmax_cross_entropy_f32(const tp_cross_entropy_params *params, const float *logits, int32_t label,
                                  float *loss, tp_bfp16 *d_logits, float *logit_range, float *exponentials);

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
} tp_initialize_constant_params;

void tp_initialize_constant_f32(const tp_initialize_constant_params *params, float *state);

typedef struct {
  int32_t size;
} tp_initialize_zero_params;

/* size bytes of 0. */
void tp_initialize_zero(const tp_initialize_zero_params *params, void *state);

typedef struct {
  int32_t channels, per_channel;
  const float *unit; /* (channels): real value of one integer step */
} tp_initialize_from_base_params;

/* master[c,i] = weights[c,i] * unit[c]. */
void tp_initialize_from_base_s8(const tp_initialize_from_base_params *params, const int8_t *weights, float *master);
void tp_initialize_from_base_s32(const tp_initialize_from_base_params *params, const int32_t *weights, float *master);

#endif
