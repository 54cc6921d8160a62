#include "tinypeft/tp_optimizer.h"

#include "tinypeft/tp_arithmetic.h"

void tp_sgd_f32(const void *params, int32_t first, int32_t count, const float *gradient, float learning_rate,
                float *master, void *const *states) {
  const tp_sgd_params *sgd = params;
  float *velocity = states != NULL ? states[0] : NULL;
  for (int32_t i = 0; i < count; i++) {
    float *weight = &master[first + i];
    float step = gradient[i];
    if (sgd->weight_decay != 0.0f) {
      const float decay = sgd->weight_decay * *weight;
      step = step + decay;
    }
    if (velocity != NULL) {
      const float kept = sgd->momentum * velocity[first + i];
      const float moved = tp_limit_f32(kept + step, TP_MASTER_LIMIT);
      const float ahead = sgd->momentum * moved;
      velocity[first + i] = moved;
      step = sgd->nesterov != 0 ? step + ahead : moved;
    }
    const float change = learning_rate * step;
    *weight = tp_limit_f32(*weight - change, TP_MASTER_LIMIT);
  }
}

void tp_accumulate_f32(const void *params, int32_t first, int32_t count, const float *gradient, float learning_rate,
                       float *sums, void *const *states) {
  (void)params, (void)learning_rate, (void)states;
  for (int32_t i = 0; i < count; i++) {
    sums[first + i] = sums[first + i] + gradient[i];
  }
}
