#include "tinypeft/tp_dense_rows.h"
#include "tinypeft/tp_kernels.h"

#define GROWTH_MAX 127

/* 2^(growth / 4). */
static float growth_factor(int32_t growth) {
  static const float quarters[] = {1.0f, 1.1892071f, 1.4142135f, 1.6817929f};
  return quarters[growth & 3] * tp_exp2i(growth >> 2);
}

/* The smallest power of two that lets the int8 output hold every logit seen. */
static int32_t output_range_shift(const tp_dense_quantize_params *params, const int32_t *logit_range) {
  const float smallest = (float)logit_range[0] * tp_exp2i(params->logit_exponent);
  const float largest = (float)logit_range[1] * tp_exp2i(params->logit_exponent);
  const float low = (float)(-128 - params->output_zero_point) * params->output_scale;
  const float high = (float)(127 - params->output_zero_point) * params->output_scale;
  int32_t shift = 0;
  while (shift < 8 && (smallest < low * tp_exp2i(shift) || largest > high * tp_exp2i(shift))) {
    shift++;
  }
  return shift;
}

/* Filter scales as int16 multipliers of one exponent, where the backward pass reads them. */
static void derive_backward(const tp_dense_quantize_params *params, const int8_t *growth, int16_t *fold_multiplier,
                            int32_t *fold_exponent) {
  float largest = 0.0f;
  if (fold_multiplier == NULL) {
    return;
  }
  for (int32_t c = 0; c < params->output_c; c++) {
    const float scale = tp_dense_scale_f32(params, c, growth[c]);
    largest = scale > largest ? scale : largest;
  }
  const int32_t exponent = tp_float_exponent(largest) - 14;
  for (int32_t c = 0; c < params->output_c; c++) {
    const float mantissa = tp_dense_scale_f32(params, c, growth[c]) * tp_exp2i(-exponent);
    fold_multiplier[c] = (int16_t)tp_min_s32(tp_round_to_s32(mantissa), INT16_MAX);
  }
  fold_exponent[0] = exponent;
}

/* Quantise a row of any values with 1 / inverse as scale; returns whether one leaves int8. */
static int quantize_row(const float *row, int32_t count, float inverse, int8_t *filter) {
  uint32_t shifted = 0;
  for (int32_t k = 0; k < count; k++) {
    const float steps = tp_limit_master(row[k]) * inverse;
    const uint32_t rounded = tp_magic_bits(steps);
    filter[k] = (int8_t)tp_clamp_s32(tp_magic_to_s32(rounded, steps), -128, 127);
    shifted |= tp_magic_outside(rounded);
  }
  return shifted > 255u;
}

float tp_dense_scale_f32(const tp_dense_quantize_params *params, int32_t channel, int32_t growth) {
  return params->filter_scale[channel] * growth_factor(growth);
}

int tp_dense_quantize_row_f32(const tp_dense_quantize_params *params, const float *row, int32_t channel, int state,
                              int8_t *filter, int8_t *growth) {
  const int32_t before = *growth;
  *growth = state == TP_ROW_WRITTEN ? 0 : *growth;
  while (quantize_row(row, params->row_size, 1.0f / tp_dense_scale_f32(params, channel, *growth), filter) != 0 &&
         *growth < GROWTH_MAX) {
    (*growth)++;
  }
  return state == TP_ROW_WRITTEN || *growth != before;
}

void tp_dense_begin_f32(const tp_dense_quantize_params *params, const int32_t *logit_range, int8_t *output_shift,
                        tp_dense_state *state) {
  const int32_t range_shift = logit_range != NULL ? output_range_shift(params, logit_range) : 0;
  state->range_shift = range_shift;
  state->range_scale = params->output_scale * tp_exp2i(range_shift);
  state->range_changed = output_shift != NULL && output_shift[0] != range_shift;
  state->scales_changed = 0;
  if (output_shift != NULL) {
    output_shift[0] = (int8_t)range_shift;
  }
}

void tp_dense_rescale_channel_f32(const tp_dense_quantize_params *params, int32_t c, int32_t growth,
                                  int32_t *multiplier, int8_t *shift, float *logit_scale, const tp_dense_state *state) {
  const float unit = tp_dense_unit_f32(params, c, growth);
  if (logit_scale != NULL) {
    logit_scale[c] = unit;
  }
  if (growth > 0) {
    shift[c] = tp_requantize_multiplier(unit / state->range_scale, &multiplier[c]);
  } else {
    multiplier[c] = params->base_multiplier[c];
    shift[c] = (int8_t)tp_clamp_s32(params->base_shift[c] - state->range_shift, -31, 30);
  }
}

void tp_dense_end_f32(const tp_dense_quantize_params *params, const int8_t *growth, int16_t *fold_multiplier,
                      int32_t *fold_exponent, const tp_dense_state *state) {
  if (state->scales_changed != 0) {
    derive_backward(params, growth, fold_multiplier, fold_exponent);
  }
}

void tp_dense_quantize_f32(const tp_dense_quantize_params *params, const float *master_filter,
                           const float *master_bias, const int32_t *logit_range, int8_t *filter, int32_t *bias,
                           int32_t *multiplier, int8_t *shift, int8_t *output_shift, float *logit_scale,
                           int16_t *fold_multiplier, int32_t *fold_exponent, int8_t *row_changed, int8_t *growth) {
  tp_dense_state state;
  tp_dense_begin_f32(params, logit_range, output_shift, &state);
  for (int32_t c = 0; c < params->output_c; c++) {
    int rescaled = 0;
    if (row_changed[c] != TP_ROW_CLEAN) {
      const int32_t first = c * params->row_size;
      const float *row = master_filter + first;
      rescaled = tp_dense_quantize_row_f32(params, row, c, row_changed[c], filter + first, &growth[c]);
      bias[c] = tp_dense_bias_f32(master_bias[c], tp_dense_unit_f32(params, c, growth[c]));
      row_changed[c] = TP_ROW_CLEAN;
    }
    state.scales_changed |= rescaled;
    if (rescaled != 0 || state.range_changed != 0) {
      tp_dense_rescale_channel_f32(params, c, growth[c], multiplier, shift, logit_scale, &state);
    }
  }
  tp_dense_end_f32(params, growth, fold_multiplier, fold_exponent, &state);
}

/* The logit within `limit` that, observed, asks for the same scale: rounded towards zero. */
static int32_t observed(const tp_dense_quantize_params *params, float limit) {
  return (int32_t)tp_limit_f32(limit * tp_exp2i(-params->logit_exponent), 1073741824.0f);
}

void tp_dense_restore_f32(const tp_dense_quantize_params *params, const int8_t *filter, const int32_t *bias,
                          const int8_t *growth, const int8_t *output_shift, float *master_filter, float *master_bias,
                          int32_t *logit_range, int16_t *fold_multiplier, int32_t *fold_exponent) {
  for (int32_t c = 0; c < params->output_c; c++) {
    const float scale = tp_dense_scale_f32(params, c, growth[c]);
    for (int32_t k = 0; k < params->row_size; k++) {
      master_filter[c * params->row_size + k] = (float)filter[c * params->row_size + k] * scale;
    }
    master_bias[c] = (float)bias[c] * tp_dense_unit_f32(params, c, growth[c]);
  }
  if (output_shift != NULL) {
    const float reach = output_shift[0] > 0 ? tp_exp2i(output_shift[0]) : 0.0f;
    logit_range[0] = observed(params, ((float)(-128 - params->output_zero_point) * params->output_scale) * reach);
    logit_range[1] = observed(params, ((float)(127 - params->output_zero_point) * params->output_scale) * reach);
  }
  derive_backward(params, growth, fold_multiplier, fold_exponent);
}
