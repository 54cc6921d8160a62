#include "tinypeft/tp_arithmetic.h"
#include "tinypeft/tp_kernels.h"

void tp_sgd_f32(const void *params, int32_t first, int32_t count, const float *gradient, float learning_rate,
                float *master, void *const *states) {
  const tp_sgd_params *p = params;
  float *velocity = states != NULL ? states[0] : NULL;
  for (int32_t i = 0; i < count; i++) {
    float step = gradient[i];
    if (velocity != NULL) {
      const float kept = p->momentum * velocity[first + i];
      velocity[first + i] = tp_limit_f32(kept + gradient[i], TP_MASTER_LIMIT);
      step = velocity[first + i];
    }
    const float change = learning_rate * step;
    master[first + i] = tp_limit_f32(master[first + i] - change, TP_MASTER_LIMIT);
  }
}

void tp_accumulate_f32(const void *params, int32_t first, int32_t count, const float *gradient, float learning_rate,
                       float *sums, void *const *states) {
  (void)params, (void)learning_rate, (void)states;
  for (int32_t i = 0; i < count; i++) {
    sums[first + i] = sums[first + i] + gradient[i];
  }
}
