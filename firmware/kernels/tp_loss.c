#include "tinypeft/tp_arithmetic.h"
#include "tinypeft/tp_kernels.h"

/* float32 gradients to mantissas of the exponent that the largest of them needs. */
static void to_bfp16(const float *values, int32_t count, tp_bfp16 *result) {
  float largest = 0.0f;
  for (int32_t i = 0; i < count; i++) {
    const float magnitude = values[i] < 0.0f ? -values[i] : values[i];
    largest = magnitude > largest ? magnitude : largest;
  }
  const int32_t exponent = largest > 0.0f ? tp_max_s32(tp_float_exponent(largest) - 14, -100) : 0;
  int32_t peak = 0;
  for (int32_t i = 0; i < count; i++) {
    const int32_t rounded = tp_round_to_s32(values[i] * tp_exp2i(-exponent));
    const int32_t value = tp_clamp_s32(rounded, -TP_BFP16_MAX, TP_BFP16_MAX);
    peak = tp_max_s32(peak, tp_abs_s32(value));
    result->mantissa[i] = (int16_t)value;
  }
  result->exponent = exponent;
  result->peak = peak;
}

void tp_softmax_cross_entropy_f32(const tp_cross_entropy_params *params, const float *logits, int32_t label,
                                  float *loss, tp_bfp16 *d_logits, float *logit_range, float *exponentials) {
  float smallest = logits[0];
  float largest = logits[0];
  for (int32_t i = 1; i < params->classes; i++) {
    smallest = logits[i] < smallest ? logits[i] : smallest;
    largest = logits[i] > largest ? logits[i] : largest;
  }
  if (logit_range != NULL) {
    logit_range[0] = smallest < logit_range[0] ? smallest : logit_range[0];
    logit_range[1] = largest > logit_range[1] ? largest : logit_range[1];
  }
  float sum = 0.0f;
  for (int32_t i = 0; i < params->classes; i++) {
    exponentials[i] = tp_exp_f32(logits[i] - largest);
    sum = sum + exponentials[i];
  }
  loss[0] = tp_log_f32(sum) - (logits[label] - largest);
  for (int32_t i = 0; i < params->classes; i++) {
    const float probability = exponentials[i] / sum;
    exponentials[i] = i == label ? probability - 1.0f : probability;
  }
  to_bfp16(exponentials, params->classes, d_logits);
}
