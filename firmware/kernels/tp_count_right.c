#include "tinypeft/tp_kernels_loss.h"

#define HALF_Q16 32768

void tp_count_right_label_s32(const tp_count_right_params *params, const int32_t *logits, int32_t label,
                              int32_t *right) {
  int32_t largest = 0;
  for (int32_t i = 1; i < params->size; i++) {
    if (logits[i] > logits[largest]) {
      largest = i;
    }
  }
  right[0] = largest == label;
}

void tp_count_right_vector_s32(const tp_count_right_params *params, const int32_t *logits, const int32_t *target,
                               int32_t *right) {
  int32_t count = 0;
  for (int32_t i = 0; i < params->size; i++) {
    count += (logits[i] > 0) == (target[i] > HALF_Q16);
  }
  right[0] = count;
}
