#include "tinypeft/tp_arithmetic.h"
#include "tinypeft/tp_optimizer.h"

void tp_clip_factor_f32(const tp_clip_params *params, int32_t count, const float *const *sums, float *factor) {
  float total = 0.0f;
  for (int32_t t = 0; t < params->tensors; t++) {
    for (int32_t start = 0; start < params->size[t]; start += TP_CLIP_PART) {
      const int32_t end = tp_min_s32(start + TP_CLIP_PART, params->size[t]);
      float part = 0.0f;
      for (int32_t i = start; i < end; i++) {
        const float square = sums[t][i] * sums[t][i];
        part = part + square;
      }
      total = total + part;
    }
  }
  const float norm = count > 0 ? tp_sqrt_f32(total) / (float)count : 0.0f;
  factor[0] = norm > params->clip_norm ? params->clip_norm / norm : 1.0f;
}
