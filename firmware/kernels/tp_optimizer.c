#include "tinypeft/tp_arithmetic.h"
#include "tinypeft/tp_kernels.h"

void tp_sgd_f32(const tp_sgd_params *params, const float *gradient, float learning_rate, float *master,
                float *velocity) {
  for (int32_t i = 0; i < params->size; i++) {
    float step = gradient[i];
    if (velocity != NULL) {
      const float kept = params->momentum * velocity[i];
      velocity[i] = tp_limit_f32(kept + gradient[i], TP_MASTER_LIMIT);
      step = velocity[i];
    }
    const float change = learning_rate * step;
    master[i] = tp_limit_f32(master[i] - change, TP_MASTER_LIMIT);
  }
}

void tp_accumulate_f32(const tp_accumulate_params *params, const float *gradient, float *sum) {
  for (int32_t i = 0; i < params->size; i++) {
    sum[i] = sum[i] + gradient[i];
  }
}

void tp_take_mean_f32(const tp_accumulate_params *params, int32_t count, float *sum, float *mean) {
  for (int32_t i = 0; i < params->size; i++) {
    mean[i] = count > 0 ? sum[i] / (float)count : 0.0f;
    sum[i] = 0.0f;
  }
}
