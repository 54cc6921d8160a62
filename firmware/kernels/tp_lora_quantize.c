#include "tinypeft/tp_arithmetic.h"
#include "tinypeft/tp_kernels.h"

/* An A whose largest element is smaller is all zeros. */
#define A_MIN 9.094947e-13f /* 2^-40 */

/* What a row of 4-bit values is multiplied with, so that its largest is `peak` int8 steps: a power of two below 60, with
 * which rounding leaves the peak in its range, else the nearest. A row restored gets the same. */
static int32_t int4_multiplier(float peak) {
  if (peak < 7.5f) {
    return 1;
  }
  if (peak < 15.0f) {
    return 2;
  }
  if (peak < 30.0f) {
    return 4;
  }
  if (peak < 60.0f) {
    return 8;
  }
  return tp_min_s32(tp_round_to_s32(peak / 7.0f), 18);
}

/* Largest sum of |filter| over (Cout,KH,KW) of one input channel. */
static int32_t input_channel_l1(const int8_t *filter, int32_t count, int32_t input_c) {
  int32_t largest = 0;
  for (int32_t c = 0; c < input_c; c++) {
    int32_t sum = 0;
    for (int32_t i = c; i < count; i += input_c) {
      sum += tp_abs_s32(filter[i]);
    }
    largest = tp_max_s32(largest, sum);
  }
  return largest;
}

/* Norms and units for the backward pass. */
static void derive_backward(const tp_lora_quantize_params *params, const int8_t *lora_A, const int8_t *lora_B,
                            float a_scale, int32_t hidden_shift, int32_t *l1, float *gradient_unit) {
  l1[0] = input_channel_l1(lora_A, params->rank * params->fan_in, params->input_c);
  l1[1] = input_channel_l1(lora_B, params->output_c * params->rank, params->rank);
  gradient_unit[0] = 1.0f / a_scale;
  gradient_unit[1] = a_scale * tp_exp2i(hidden_shift);
}

/* The largest magnitude of masters, and whether they are quantised as they are: none of them is limited. */
typedef struct {
  float peak;
  int as_is;
} extent;

static inline extent extent_of(const float *x, int32_t count) {
  const float limit = TP_MASTER_LIMIT;
  extent found = {0.0f, 1};
  uint32_t bits = 0;
  for (int32_t i = 0; i < count; i++) {
    const uint32_t magnitude = tp_magnitude_bits(x[i]);
    bits = magnitude > bits ? magnitude : bits;
  }
  memcpy(&found.peak, &bits, sizeof found.peak);
  if (bits > tp_magnitude_bits(limit)) {
    found.peak = tp_peak_of_masters(x, count);
    found.as_is = 0;
  }
  return found;
}

/* `steps` rounded where it is in (-127.5, 127.5). With 0.5 added, what is below 0 is a multiple of 2^-24, so that a
 * shift is its floor. */
static inline int32_t round_steps(float steps) { return (int32_t)((steps + 0.5f) * 16777216.0f) >> 24; }

/* A row of masters, divided by or times `step`, rounded and limited: to int8 where `multiplier` is NULL, else to 4 bits
 * times a multiplier that the largest of them gives. Returns the sum of magnitudes. */
static TP_NOINLINE int32_t limit_row(const float *row, int32_t size, int divided, float step, int8_t *quantized,
                                     int8_t *multiplier) {
  int32_t sum = 0;
  float unit = 1.0f;
  int32_t times = 1;
  float most = 127.0f;
  if (multiplier != NULL) {
    const float peak = tp_peak_of_masters(row, size);
    times = int4_multiplier(divided ? peak / step : peak * step);
    *multiplier = (int8_t)times;
    unit = (float)times;
    most = 7.0f;
  }
  for (int32_t i = 0; i < size; i++) {
    const float steps = divided ? tp_limit_master(row[i]) / step : tp_limit_master(row[i]) * step;
    const float scaled = multiplier != NULL ? steps / unit : steps;
    quantized[i] = (int8_t)(tp_round_to_s32(tp_limit_f32(scaled, most)) * times);
    sum += tp_abs_s32(quantized[i]);
  }
  return sum;
}

/* The same without limits where none is reached. */
TP_ALWAYS_INLINE int32_t round_row(const float *row, int32_t size, extent of, int divided, float step,
                                   int8_t *quantized, int8_t *multiplier) {
  if (multiplier != NULL || !of.as_is || !((divided ? of.peak / step : of.peak * step) < 127.5f)) {
    return limit_row(row, size, divided, step, quantized, multiplier);
  }
  int32_t sum = 0;
  for (int32_t i = 0; i < size; i++) {
    const int32_t rounded = round_steps(divided ? row[i] / step : row[i] * step);
    quantized[i] = (int8_t)rounded;
    sum += tp_abs_s32(rounded);
  }
  return sum;
}

/* Whether `reach`, of at least 0, is at most `limit` when it is shifted right by `shift`, half up. */
static int shifted_within(int64_t reach, int32_t shift, int32_t limit) {
  return (shift >= 0 && reach <= limit) || tp_round_shift_s64(reach, shift) <= limit;
}

void tp_lora_quantize_f32(const tp_lora_quantize_params *params, const float *master_A, const float *master_B,
                          int8_t *lora_A, int8_t *hidden_shift, int8_t *lora_B, int8_t *lora_shift, float *a_scale,
                          int32_t *l1, float *gradient_unit, int8_t *a_multiplier, int8_t *b_multiplier) {
  const int32_t rank = params->rank;
  const int32_t fan_in = params->fan_in;
  const extent of_a = extent_of(master_A, rank * fan_in);
  const float scale = of_a.peak >= A_MIN ? of_a.peak / (a_multiplier != NULL ? 126.0f : 127.0f) : 1.0f;
  int32_t row_l1 = 0;
  for (int32_t r = 0; r < rank; r++) {
    int8_t *multiplier = a_multiplier != NULL ? a_multiplier + r : NULL;
    const int32_t sum = round_row(master_A + r * fan_in, fan_in, of_a, 1, scale, lora_A + r * fan_in, multiplier);
    row_l1 = tp_max_s32(row_l1, sum);
  }
  const int64_t hidden_bound = (int64_t)row_l1 * params->input_range;
  const int32_t k_h = tp_narrow_shift(hidden_bound, INT16_MAX);
  const int32_t hidden_peak = (int32_t)tp_round_shift_s64(hidden_bound, k_h);
  const float hidden_unit = scale * tp_exp2i(k_h);
  hidden_shift[0] = (int8_t)k_h;
  a_scale[0] = scale;

  const int32_t limit = TP_REQUANTIZE_MAX - params->acc_bound;
  for (int32_t c = 0; c < params->output_c; c++) {
    const float *row = master_B + c * rank;
    const extent of_row = extent_of(row, rank);
    const float factor = hidden_unit * params->b_unit[c];
    /* the largest lies in [63.75, 127.5) steps, none is clipped; or in [66.5, 133), near a multiple of 7 */
    const float reach = of_row.peak * factor;
    const float peak = reach * (b_multiplier != NULL ? 64.0f / 66.5f : 257.0f / 256.0f);
    int8_t *multiplier = b_multiplier != NULL ? b_multiplier + c : NULL;
    int32_t k_b = 24;
    if (peak > 0.0f) {
      k_b = tp_clamp_s32(6 - tp_float_exponent(peak), -24, 24);
    }
    for (;;) {
      const int32_t sum =
          round_row(row, rank, of_row, 0, factor * tp_exp2i(k_b), lora_B + c * rank, multiplier);
      if (k_b >= 24 || shifted_within((int64_t)hidden_peak * sum, k_b, limit)) {
        break;
      }
      k_b++;
    }
    lora_shift[c] = (int8_t)k_b;
  }
  derive_backward(params, lora_A, lora_B, scale, k_h, l1, gradient_unit);
}

void tp_lora_restore_f32(const tp_lora_quantize_params *params, const int8_t *lora_A, const int8_t *hidden_shift,
                         const int8_t *lora_B, const int8_t *lora_shift, const float *a_scale, float *master_A,
                         float *master_B, int32_t *l1, float *gradient_unit) {
  const float hidden_unit = a_scale[0] * tp_exp2i(hidden_shift[0]);
  for (int32_t i = 0; i < params->rank * params->fan_in; i++) {
    master_A[i] = (float)lora_A[i] * a_scale[0];
  }
  for (int32_t c = 0; c < params->output_c; c++) {
    const float factor = hidden_unit * params->b_unit[c];
    const float unit = factor * tp_exp2i(lora_shift[c]);
    for (int32_t r = 0; r < params->rank; r++) {
      master_B[c * params->rank + r] = (float)lora_B[c * params->rank + r] / unit;
    }
  }
  derive_backward(params, lora_A, lora_B, a_scale[0], hidden_shift[0], l1, gradient_unit);
}
