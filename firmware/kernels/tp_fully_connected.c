#include "tinypeft/tp_accumulate.h"
#include "tinypeft/tp_kernels.h"
#include "tinypeft/tp_lora_add.h"

/* How many channels' accumulators are held at once. */
#define ROW_BLOCK 24

/* What the positions of a layer share. */
typedef struct {
  const tp_fully_connected_params *params;
  const int8_t *filter;
  const int32_t *bias; /* NULL for 0 */
  tp_lora lora;
} dense_layer;

/* The accumulators of `count` output channels from `first` on for the position at `input`, in `column` if widened. */
static void accumulate(const dense_layer *layer, const int8_t *input, const int16_t *column, int32_t first,
                       int32_t count, const int16_t *hidden, int32_t acc[ROW_BLOCK]) {
  const int32_t input_c = layer->params->input_c;
  for (int32_t j = 0; j < count; j += TP_BLOCK) {
    const int8_t *filter = layer->filter + (first + j) * input_c;
    const int32_t filters = tp_min_s32(count - j, TP_BLOCK);
    if (column != NULL) {
      tp_dot_rows_s8(column, filter, input_c, input_c, filters, acc + j);
    } else {
      tp_dot_input_s8(input, filter, input_c, input_c, filters, acc + j);
    }
  }
  if (layer->lora.rank > 0) {
    tp_lora_add(&layer->lora, first, count, hidden, acc);
  }
  for (int32_t j = 0; layer->bias != NULL && j < count; j++) {
    acc[j] += layer->bias[first + j];
  }
}

void tp_fully_connected_s8(const tp_fully_connected_params *params, const int8_t *input, const int8_t *filter,
                           const int32_t *bias, const int32_t *multiplier, const int8_t *shift, const int16_t *hidden,
                           const int8_t *lora_B, const int8_t *lora_shift, int8_t *output, int16_t *column) {
  const tp_lora lora = tp_make_lora(lora_B, lora_shift, params->output_c, params->rank);
  const dense_layer layer = {params, filter, bias, lora};
  for (int32_t p = 0; p < params->positions; p++) {
    if (column != NULL) {
      tp_widen_s8(input, params->input_c, params->input_offset, column);
    }
    for (int32_t c = 0; c < params->output_c; c += ROW_BLOCK) {
      int32_t acc[ROW_BLOCK];
      const int32_t count = tp_min_s32(params->output_c - c, ROW_BLOCK);
      accumulate(&layer, input, column, c, count, hidden, acc);
      for (int32_t j = 0; j < count; j++) {
        const int32_t value = tp_requantize_single(acc[j], multiplier[c + j], shift[c + j]) + params->output_offset;
        *output++ = (int8_t)tp_clamp_s32(value, params->activation_min, params->activation_max);
      }
    }
    input += params->input_c;
    if (params->rank > 0) {
      hidden += params->rank;
    }
  }
}

void tp_dense_logits_s8(const tp_fully_connected_params *params, const int8_t *input, const int8_t *filter,
                        const int32_t *bias, const float *scale, const int16_t *hidden, const int8_t *lora_B,
                        const int8_t *lora_shift, int32_t *logits, int16_t *column) {
  const tp_lora lora = tp_make_lora(lora_B, lora_shift, params->output_c, params->rank);
  const dense_layer layer = {params, filter, bias, lora};
  if (column != NULL) {
    tp_widen_s8(input, params->input_c, params->input_offset, column);
  }
  for (int32_t c = 0; c < params->output_c; c += ROW_BLOCK) {
    int32_t acc[ROW_BLOCK];
    const int32_t count = tp_min_s32(params->output_c - c, ROW_BLOCK);
    accumulate(&layer, input, column, c, count, hidden, acc);
    for (int32_t j = 0; j < count; j++) {
      int32_t multiplier;
      const int32_t exponent = tp_float_multiplier(&scale[c + j], &multiplier);
      *logits++ = tp_fixed_point(acc[j], multiplier, params->logit_exponent - exponent);
    }
  }
}
