#include "tinypeft/tp_arithmetic.h"

int32_t tp_common_exponent(int64_t bound_a, int32_t exponent_a, int64_t bound_b, int32_t exponent_b) {
  const int32_t ea = bound_a == 0 ? exponent_b : exponent_a;
  const int32_t eb = bound_b == 0 ? ea : exponent_b;
  const int32_t low = tp_min_s32(ea, eb);
  const int32_t high = tp_max_s32(ea, eb);
  int32_t exponent = tp_max_s32(low, high - 30);
  while (tp_round_shift_s64(bound_a, exponent - ea) + tp_round_shift_s64(bound_b, exponent - eb) > TP_BFP16_MAX) {
    exponent++;
  }
  return exponent;
}

float tp_exp_f32(float x) {
  static const float coefficients[] = {1.0f / 120.0f, 1.0f / 24.0f, 1.0f / 6.0f, 0.5f, 1.0f, 1.0f};
  if (!(x >= -87.0f)) {
    return 0.0f;
  }
  const float scaled = x * 1.44269504f;
  const int32_t n = tp_round_to_s32(scaled);
  const float high = (float)n * 0.693359375f;
  const float low = (float)n * -2.12194440e-4f;
  const float r = (x - high) - low;
  float p = 1.0f / 720.0f;
  for (size_t i = 0; i < sizeof coefficients / sizeof coefficients[0]; i++) {
    const float product = p * r;
    p = product + coefficients[i];
  }
  return p * tp_exp2i(n);
}

float tp_log_f32(float x) {
  static const float coefficients[] = {1.0f / 7.0f, 1.0f / 5.0f, 1.0f / 3.0f, 1.0f};
  int32_t exponent = tp_float_exponent(x) + 1;
  float m = x * tp_exp2i(-exponent);
  if (m < 0.70710678f) {
    m = m * 2.0f;
    exponent--;
  }
  const float f = (m - 1.0f) / (m + 1.0f);
  const float s = f * f;
  float p = 1.0f / 9.0f;
  for (size_t i = 0; i < sizeof coefficients / sizeof coefficients[0]; i++) {
    const float product = p * s;
    p = product + coefficients[i];
  }
  const float mantissa_part = (2.0f * f) * p;
  const float exponent_part = (float)exponent * 0.69314718f;
  return mantissa_part + exponent_part;
}

uint32_t tp_uniform_f32(uint32_t state, float *values, int32_t count, float bound) {
  for (int32_t i = 0; i < count; i++) {
    state = tp_xorshift32(state);
    const float unit = (float)((int32_t)(state >> 8) - (1 << 23)) * tp_exp2i(-23);
    values[i] = unit * bound;
  }
  return state;
}
