#include "tinypeft/tp_arithmetic.h"
#include "tinypeft/tp_kernels.h"

/* A channel whose scale exceeds the base layer's by no more than rounding keeps that. */
#define SAME_SCALE 1.000001f

/* A master as it is quantised: finite. */
static float limited(float x) { return tp_limit_f32(x, TP_MASTER_LIMIT); }

/* The Q31 multiplier and shift of a positive normal float32, exactly. */
static void float_to_multiplier(float real, int32_t *multiplier, int32_t *shift) {
  uint32_t bits;
  memcpy(&bits, &real, sizeof bits);
  *multiplier = (int32_t)(((bits & 0x7FFFFFu) | 0x800000u) << 7);
  *shift = tp_float_exponent(real) + 1;
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

/* Filter scales as int16 multipliers of one exponent, and the largest sum of |filter| over one input channel. */
static void derive_backward(const tp_dense_quantize_params *params, const int8_t *filter, const float *logit_scale,
                            int16_t *fold_multiplier, int32_t *fold_exponent, int32_t *l1) {
  float largest = 0.0f;
  for (int32_t c = 0; c < params->output_c; c++) {
    largest = logit_scale[c] > largest ? logit_scale[c] : largest;
  }
  const int32_t exponent = tp_float_exponent(largest / params->input_scale) - 14;
  for (int32_t c = 0; c < params->output_c; c++) {
    const float mantissa = (logit_scale[c] / params->input_scale) * tp_exp2i(-exponent);
    fold_multiplier[c] = (int16_t)tp_min_s32(tp_round_to_s32(mantissa), TP_BFP16_MAX);
  }
  fold_exponent[0] = exponent;
  int32_t norm = 0;
  for (int32_t k = 0; k < params->input_c; k++) {
    int32_t sum = 0;
    for (int32_t c = 0; c < params->output_c; c++) {
      sum += tp_abs_s32(filter[c * params->input_c + k]);
    }
    norm = tp_max_s32(norm, sum);
  }
  l1[0] = norm;
}

void tp_dense_quantize_f32(const tp_dense_quantize_params *params, const float *master_filter,
                           const float *master_bias, const int32_t *logit_range, int8_t *filter, int32_t *bias,
                           int32_t *multiplier, int32_t *shift, int8_t *output_shift, float *logit_scale,
                           int16_t *fold_multiplier, int32_t *fold_exponent, int32_t *l1) {
  const int32_t range_shift = output_range_shift(params, logit_range);
  const float range_scale = params->output_scale * tp_exp2i(range_shift);
  output_shift[0] = (int8_t)range_shift;
  for (int32_t c = 0; c < params->output_c; c++) {
    const float *row = master_filter + c * params->input_c;
    float peak = 0.0f;
    for (int32_t k = 0; k < params->input_c; k++) {
      const float value = limited(row[k]);
      const float magnitude = value < 0.0f ? -value : value;
      peak = magnitude > peak ? magnitude : peak;
    }
    const float needed = peak / 127.0f;
    const int grown = needed > params->filter_scale[c] * SAME_SCALE;
    const float scale = grown ? needed : params->filter_scale[c];
    for (int32_t k = 0; k < params->input_c; k++) {
      filter[c * params->input_c + k] = (int8_t)tp_clamp_s32(tp_round_to_s32(limited(row[k]) / scale), -127, 127);
    }
    const float unit = params->input_scale * scale;
    bias[c] = tp_round_to_s32(limited(master_bias[c]) / unit);
    logit_scale[c] = unit;
    if (grown) {
      float_to_multiplier(unit / range_scale, &multiplier[c], &shift[c]);
    } else {
      multiplier[c] = params->base_multiplier[c];
      shift[c] = params->base_shift[c] - range_shift;
    }
    shift[c] = tp_clamp_s32(shift[c], -31, 30);
  }
  derive_backward(params, filter, logit_scale, fold_multiplier, fold_exponent, l1);
}

/* The logit within `limit` that, observed, asks for the same scale: rounded towards zero. */
static int32_t observed(const tp_dense_quantize_params *params, float limit) {
  return (int32_t)tp_limit_f32(limit * tp_exp2i(-params->logit_exponent), 1073741824.0f);
}

void tp_dense_restore_f32(const tp_dense_quantize_params *params, const int8_t *filter, const int32_t *bias,
                          const int8_t *output_shift, const float *logit_scale, float *master_filter,
                          float *master_bias, int32_t *logit_range, int16_t *fold_multiplier, int32_t *fold_exponent,
                          int32_t *l1) {
  for (int32_t c = 0; c < params->output_c; c++) {
    const float scale = logit_scale[c] / params->input_scale;
    for (int32_t k = 0; k < params->input_c; k++) {
      master_filter[c * params->input_c + k] = (float)filter[c * params->input_c + k] * scale;
    }
    master_bias[c] = (float)bias[c] * logit_scale[c];
  }
  const float reach = output_shift[0] > 0 ? tp_exp2i(output_shift[0]) : 0.0f;
  logit_range[0] = observed(params, ((float)(-128 - params->output_zero_point) * params->output_scale) * reach);
  logit_range[1] = observed(params, ((float)(127 - params->output_zero_point) * params->output_scale) * reach);
  derive_backward(params, filter, logit_scale, fold_multiplier, fold_exponent, l1);
}
