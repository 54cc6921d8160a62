/* Initialisation, loss and optimisers. */
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

/* One optimiser's update of `count` elements of `master`, and of each of its states, from element `first` on.
 * gradient[i] belongs to element first + i. `states` are whole arrays. */
typedef void (*tp_optimizer_function)(const void *params, int32_t first, int32_t count, const float *gradient,
                                      float learning_rate, float *master, void *const *states);

typedef struct {
  float momentum;
} tp_sgd_params;

/* velocity = momentum * velocity + gradient; master -= learning_rate * velocity; both kept within +-TP_MASTER_LIMIT,
 * not a number becomes 0. states: the velocity; NULL where momentum is 0. */
void tp_sgd_f32(const void *params, int32_t first, int32_t count, const float *gradient, float learning_rate,
                float *master, void *const *states);

/* sums += gradient; params and states are not read. */
void tp_accumulate_f32(const void *params, int32_t first, int32_t count, const float *gradient, float learning_rate,
                       float *sums, void *const *states);

/* Row `row` of a parameter's gradient: the sums over positions, rounded to `shift` bits fewer, into `gradient`.
 * Returns whether one of them is not 0. */
typedef int (*tp_gradient_function)(const void *params, const tp_bfp16 *d_output, const void *source, int32_t row,
                                    int32_t shift, int32_t *gradient);

typedef struct {
  int32_t rows, row_size;
  tp_optimizer_function update;
  const void *update_params;
  /* of tp_update_rows alone: */
  int64_t reach;      /* largest |sum| over the largest mantissa of d_output */
  int32_t skips_zero; /* leave out rows of zeros, which change nothing */
  tp_gradient_function gradient;
  const void *gradient_params;
  const float *scale; /* (rows): what a sum is worth; NULL: uniform_scale */
  float uniform_scale;
  int32_t unit_index;
} tp_update_params;

/* Update a parameter by its gradient, a row at a time: sums * 2^exponent * scale * unit[unit_index] *
 * channel_unit[row], of which unit and channel_unit (rows) may be NULL. row_peak (rows), unless NULL, becomes the largest
 * |master| of each row that was not left out. scratch: row_size float. */
void tp_update_rows(const tp_update_params *params, const tp_bfp16 *d_output, const void *source, const float *unit,
                    const float *channel_unit, float learning_rate, float *master, float *row_peak,
                    void *const *states, void *scratch);

/* Update a parameter by sums / count [* factor[0]], 0 where count is 0, and clear the sums. scratch: row_size float. */
void tp_update_from_sums(const tp_update_params *params, int32_t count, const float *factor, float learning_rate,
                         float *sums, float *master, float *row_peak, void *const *states, void *scratch);

typedef struct {
  int32_t size;
  int32_t stream; /* number of the parameter: each draws from a stream of its own */
  float bound;
} tp_initialize_uniform_params;

/* size values in [-bound, bound), determined by seed and stream. */
void tp_initialize_uniform_f32(const tp_initialize_uniform_params *params, int32_t seed, float *master);

typedef struct {
  int32_t size;
  int32_t stream;
  float deviation;
} tp_initialize_normal_params;

/* size values around 0, nearly normal: each the sum of 12 uniforms, whose variance is 1, times deviation. */
void tp_initialize_normal_f32(const tp_initialize_normal_params *params, int32_t seed, float *master);

typedef struct {
  int32_t size;
} tp_initialize_from_table_params;

/* master (size) = table. */
void tp_initialize_from_table_f32(const tp_initialize_from_table_params *params, const float *table, float *master);

typedef struct {
  int32_t size;
  float value;
} tp_initialize_constant_params;

void tp_initialize_constant_f32(const tp_initialize_constant_params *params, float *state);

typedef struct {
  int32_t channels, per_channel;
  const float *unit; /* (channels): real value of one integer step */
} tp_initialize_from_base_params;

/* master[c,i] = weights[c,i] * unit[c]. */
void tp_initialize_from_base_s8(const tp_initialize_from_base_params *params, const int8_t *weights, float *master);
void tp_initialize_from_base_s32(const tp_initialize_from_base_params *params, const int32_t *weights, float *master);

#endif
