#include <string.h>

#include "tinypeft/tp_kernels_layout.h"

void tp_concatenation_s8(const tp_concatenation_params *params, const int8_t *const *inputs, int8_t *output) {
  int32_t row = 0;
  for (int32_t i = 0; i < params->count; i++) {
    row += params->size[i];
  }
  for (int32_t i = 0; i < params->count; i++) {
    const int8_t *source = inputs[i];
    if (source != output) {
      for (int32_t n = 0; n < params->outer; n++) {
        memcpy(output + n * row, source, (size_t)params->size[i]);
        source += params->size[i];
      }
    }
    output += params->size[i];
  }
}
