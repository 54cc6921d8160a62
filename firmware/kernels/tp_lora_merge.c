#include <stddef.h>

#include "tinypeft/tp_arithmetic.h"
#include "tinypeft/tp_kernels_conv.h"

void tp_lora_merge_s8(const tp_lora_merge_params *params, const int8_t *filter, const int8_t *lora_A,
                      const int8_t *hidden_shift, const int8_t *lora_B, const int8_t *lora_shift, const int32_t *bias,
                      int8_t *merged_filter, int32_t *merged_bias) {
  const int32_t fan_in = params->fan_in;
  for (int32_t c = 0; c < params->output_c; c++) {
    const int8_t *row = lora_B + c * params->rank;
    const int32_t shift = hidden_shift[0] + lora_shift[c];
    int32_t added = 0;
    for (int32_t k = 0; k < fan_in; k++) {
      const int32_t before = filter[c * fan_in + k];
      int32_t product = 0;
      for (int32_t r = 0; r < params->rank; r++) {
        product += row[r] * lora_A[r * fan_in + k];
      }
      const int64_t sum = before + tp_round_shift_s64(product, shift);
      const int32_t after = sum < -128 ? -128 : sum > 127 ? 127 : (int32_t)sum;
      merged_filter[c * fan_in + k] = (int8_t)after;
      added += after - before;
    }
    if (merged_bias != NULL) {
      merged_bias[c] = bias[c] - params->zero_point * added;
    }
  }
}
