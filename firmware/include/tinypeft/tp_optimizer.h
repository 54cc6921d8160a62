/* Optimisers: updates of float32 masters by rows of their gradients, and what happens once before the updates of a step.
 *
 * Masters and states stay within +-TP_MASTER_LIMIT, and not a number becomes 0. */
#ifndef TP_OPTIMIZER_H
#define TP_OPTIMIZER_H

#include "tp_types.h"

/* Update `count` elements of `master` and of each state from element `first` on; gradient[i] belongs to element
 * first + i. `params` is the optimiser's own struct, `states` its whole arrays in the order given below. However a
 * parameter is divided into calls, it gets the same bits; a row is a slice along the first axis. */
typedef void (*tp_optimizer_function)(const void *params, int32_t first, int32_t count, const float *gradient,
                                      float learning_rate, float *master, void *const *states);

typedef struct {
  float momentum;
  float weight_decay; /* joins the gradient: weight_decay * master */
  int32_t nesterov;   /* not 0: the step is gradient + momentum * velocity */
} tp_sgd_params;

/* velocity = momentum * velocity + gradient; master -= learning_rate * velocity.
 * states: float velocity[]; NULL for none, as where momentum is 0. */
void tp_sgd_f32(const void *params, int32_t first, int32_t count, const float *gradient, float learning_rate,
                float *master, void *const *states);

typedef struct {
  float gain_1, gain_2; /* 1 - beta_1, 1 - beta_2 */
  float epsilon;        /* above 0, the paper's epsilon hat */
  float weight_decay;   /* decoupled: master -= learning_rate * weight_decay * master */
} tp_adam_params;

/* Adam as Keras has it. states: float first_moment[], float second_moment[], float adam_powers[2]. */
void tp_adam_f32(const void *params, int32_t first, int32_t count, const float *gradient, float learning_rate,
                 float *master, void *const *states);

/* Consecutive elements of a row that share the scales of their moments. */
#define TP_ADAM8_BLOCK 64

typedef struct {
  int32_t row_size; /* elements */
  tp_adam_params adam;
} tp_adam8_params;

/* Adam with moments of 8 bits; one code of a block is worth its scale, of the second moment's square root.
 * states: int8_t first_moment[], uint8_t second_moment[], float first_scale[rows * blocks],
 * float second_scale[rows * blocks], float adam_powers[2], where blocks = ceil(row_size / TP_ADAM8_BLOCK).
 * first and count: whole rows. Takes 2 * TP_ADAM8_BLOCK floats of stack. */
void tp_adam8_f32(const void *params, int32_t first, int32_t count, const float *gradient, float learning_rate,
                  float *master, void *const *states);

typedef struct {
  float beta_1, beta_2;
} tp_adam_step_params;

/* powers (2) *= (beta_1, beta_2): once before the updates of a step. They start at 1. */
void tp_adam_step_f32(const tp_adam_step_params *params, float *powers);

/* Consecutive elements whose squares are summed before they join the total. */
#define TP_CLIP_PART 256

typedef struct {
  int32_t tensors;
  const int32_t *size; /* (tensors): elements */
  float clip_norm;     /* above 0 */
} tp_clip_params;

/* factor (1) = min(1, clip_norm / norm) of the mean gradient sums / count; 1 where the norm is not a number or count is
 * not above 0. */
void tp_clip_factor_f32(const tp_clip_params *params, int32_t count, const float *const *sums, float *factor);

/* sums += gradient, called as an optimiser is; params, learning_rate and states are not read. */
void tp_accumulate_f32(const void *params, int32_t first, int32_t count, const float *gradient, float learning_rate,
                       float *sums, void *const *states);

#endif
