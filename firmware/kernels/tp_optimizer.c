#include "tinypeft/tp_optimizer.h"

#include "tinypeft/tp_arithmetic.h"

/* `count` elements; velocity may be NULL. */
TP_ALWAYS_INLINE void descend(const tp_sgd_params *sgd, float weight_decay, int32_t count, const float *gradient,
                              float learning_rate, float *master, float *velocity) {
  for (int32_t i = 0; i < count; i++) {
    float step = gradient[i];
    if (weight_decay != 0.0f) {
      const float decay = weight_decay * master[i];
      step = step + decay;
    }
    if (velocity != NULL) {
      const float kept = sgd->momentum * velocity[i];
      const float moved = tp_limit_f32(kept + step, TP_MASTER_LIMIT);
      const float ahead = sgd->momentum * moved;
      velocity[i] = moved;
      step = sgd->nesterov != 0 ? step + ahead : moved;
    }
    const float change = learning_rate * step;
    master[i] = tp_limit_f32(master[i] - change, TP_MASTER_LIMIT);
  }
}

void tp_sgd_f32(const void *params, int32_t first, int32_t count, const float *gradient, float learning_rate,
                float *master, void *const *states) {
  const tp_sgd_params *sgd = params;
  float *velocity = states != NULL ? states[0] : NULL;
  if (velocity == NULL && sgd->weight_decay == 0.0f) {
    descend(sgd, 0.0f, count, gradient, learning_rate, master + first, NULL);
  } else {
    descend(sgd, sgd->weight_decay, count, gradient, learning_rate, master + first,
            velocity != NULL ? velocity + first : NULL);
  }
}

void tp_accumulate_f32(const void *params, int32_t first, int32_t count, const float *gradient, float learning_rate,
                       float *sums, void *const *states) {
  (void)params, (void)learning_rate, (void)states;
  for (int32_t i = 0; i < count; i++) {
    sums[first + i] = sums[first + i] + gradient[i];
  }
}
