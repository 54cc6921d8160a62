#include "tinypeft/tp_accumulate.h"
#include "tinypeft/tp_kernels.h"

/* The accumulator of output channel c at one position, adapter included. */
static int32_t accumulate(const tp_fully_connected_params *params, int32_t position, int32_t c, const int8_t *input,
                          const int8_t *filter, const int32_t *bias, const int16_t *hidden, const int8_t *lora_B,
                          const int8_t *lora_shift) {
  int32_t acc = tp_dot_s8(filter + c * params->input_c, input + position * params->input_c, params->input_c,
                          params->input_offset);
  if (bias != NULL) {
    acc += bias[c];
  }
  if (params->rank > 0) {
    acc += tp_lora_up(hidden + position * params->rank, lora_B + c * params->rank, params->rank, lora_shift[c]);
  }
  return acc;
}

void tp_fully_connected_s8(const tp_fully_connected_params *params, const int8_t *input, const int8_t *filter,
                           const int32_t *bias, const int32_t *multiplier, const int32_t *shift, const int16_t *hidden,
                           const int8_t *lora_B, const int8_t *lora_shift, int8_t *output) {
  for (int32_t p = 0; p < params->positions; p++) {
    for (int32_t c = 0; c < params->output_c; c++) {
      int32_t acc = accumulate(params, p, c, input, filter, bias, hidden, lora_B, lora_shift);
      acc = tp_requantize_single(acc, multiplier[c], shift[c]) + params->output_offset;
      output[p * params->output_c + c] = (int8_t)tp_clamp_s32(acc, params->activation_min, params->activation_max);
    }
  }
}

void tp_dense_logits_s8(const tp_fully_connected_params *params, const int8_t *input, const int8_t *filter,
                        const int32_t *bias, const float *scale, const int16_t *hidden, const int8_t *lora_B,
                        const int8_t *lora_shift, float *logits) {
  for (int32_t c = 0; c < params->output_c; c++) {
    logits[c] = (float)accumulate(params, 0, c, input, filter, bias, hidden, lora_B, lora_shift) * scale[c];
  }
}
