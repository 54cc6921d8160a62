#include "tinypeft/tp_accumulate.h"
#include "tinypeft/tp_kernels.h"
#include "tinypeft/tp_lora_start.h"

/* The accumulators of `filters` output channels from c on, for the position at `input`, widened in `column` if any.
 * `start` is what they start from, NULL for 0. */
static void accumulate(const tp_fully_connected_params *params, const int8_t *input, const int16_t *column, int32_t c,
                       int32_t filters, const int8_t *filter, const int32_t *start, int32_t acc[TP_BLOCK]) {
  if (column != NULL) {
    tp_dot_rows_s8(column, filter + c * params->input_c, params->input_c, params->input_c, filters, acc);
  } else {
    tp_dot_input_s8(input, filter + c * params->input_c, params->input_c, params->input_c, filters, acc);
  }
  for (int32_t j = 0; start != NULL && j < filters; j++) {
    acc[j] += start[c + j];
  }
}

/* The part of scratch for a widened input; NULL where the kernel reads it as it lies. */
static int16_t *column_of(const tp_fully_connected_params *params, int32_t *scratch) {
  return params->direct ? NULL : (void *)(scratch + (params->rank > 0 ? params->output_c : 0));
}

void tp_fully_connected_s8(const tp_fully_connected_params *params, const int8_t *input, const int8_t *filter,
                           const int32_t *bias, const int32_t *multiplier, const int8_t *shift, const int16_t *hidden,
                           const int8_t *lora_B, const int8_t *lora_shift, int8_t *output, void *scratch) {
  const tp_lora lora = tp_make_lora(lora_B, lora_shift, params->output_c, params->rank);
  int16_t *column = column_of(params, scratch);
  const int32_t *start = bias;
  for (int32_t p = 0; p < params->positions; p++) {
    if (column != NULL) {
      tp_widen_s8(input, params->input_c, params->input_offset, column);
    }
    if (params->rank > 0) {
      tp_lora_start(&lora, 1, bias, hidden, scratch);
      hidden += params->rank;
      start = scratch;
    }
    for (int32_t c = 0; c < params->output_c; c += TP_BLOCK) {
      int32_t acc[TP_BLOCK];
      const int32_t filters = tp_min_s32(params->output_c - c, TP_BLOCK);
      accumulate(params, input, column, c, filters, filter, start, acc);
      for (int32_t j = 0; j < filters; j++) {
        const int32_t value = tp_requantize_single(acc[j], multiplier[c + j], shift[c + j]) + params->output_offset;
        *output++ = (int8_t)tp_clamp_s32(value, params->activation_min, params->activation_max);
      }
    }
    input += params->input_c;
  }
}

void tp_dense_logits_s8(const tp_fully_connected_params *params, const int8_t *input, const int8_t *filter,
                        const int32_t *bias, const float *scale, const int16_t *hidden, const int8_t *lora_B,
                        const int8_t *lora_shift, int32_t *logits, void *scratch) {
  int16_t *column = column_of(params, scratch);
  const int32_t *start = bias;
  if (column != NULL) {
    tp_widen_s8(input, params->input_c, params->input_offset, column);
  }
  if (params->rank > 0) {
    const tp_lora lora = tp_make_lora(lora_B, lora_shift, params->output_c, params->rank);
    tp_lora_start(&lora, 1, bias, hidden, scratch);
    start = scratch;
  }
  for (int32_t c = 0; c < params->output_c; c += TP_BLOCK) {
    int32_t acc[TP_BLOCK];
    const int32_t filters = tp_min_s32(params->output_c - c, TP_BLOCK);
    accumulate(params, input, column, c, filters, filter, start, acc);
    for (int32_t j = 0; j < filters; j++) {
      int32_t multiplier;
      const int32_t exponent = tp_float_multiplier(&scale[c + j], &multiplier);
      *logits++ = tp_fixed_point(acc[j], multiplier, params->logit_exponent - exponent);
    }
  }
}
