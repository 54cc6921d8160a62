#include "tinypeft/tp_kernels_loss.h"

#include "tinypeft/tp_arithmetic.h"

#define ONE_Q16 65536
#define ONE_Q31 ((int64_t)1 << 31)
/* Bits of a difference that is squared, so that all squares add up to less than 2^62. */
#define SQUARED_BITS 23

/* a / b rounded half up, a >= 0, b > 0. */
static int64_t divide(int64_t a, int64_t b) { return (a + b / 2) / b; }

static int64_t abs_s64(int64_t x) { return x < 0 ? -x : x; }

/* The number of bits of x >= 0. */
static int32_t bit_length(int64_t x) {
  int32_t bits = 0;
  while (x >> bits >= 256) {
    bits += 8;
  }
  while (x >> bits != 0) {
    bits++;
  }
  return bits;
}

static void observe(const int32_t *logits, int32_t count, int32_t *logit_range) {
  for (int32_t i = 0; i < count && logit_range != NULL; i++) {
    logit_range[0] = tp_min_s32(logit_range[0], logits[i]);
    logit_range[1] = tp_max_s32(logit_range[1], logits[i]);
  }
}

/* The shift that brings every value * multiplier, of magnitudes up to `largest`, into a mantissa after rounding. */
static int32_t block_shift(int64_t largest) {
  const int32_t shift = tp_max_s32(bit_length(largest) - (TP_GRADIENT_BITS - 1), 0);
  return shift + (tp_round_wide(largest, shift) > TP_BFP_MAX ? 1 : 0);
}

static void put_mantissa(tp_bfp *result, int32_t i, int32_t value, int32_t multiplier, int32_t shift) {
  const int32_t mantissa = (int32_t)tp_round_wide((int64_t)value * multiplier, shift);
  result->mantissa[i] = (tp_mantissa)mantissa;
  result->peak = tp_max_s32(result->peak, tp_abs_s32(mantissa));
}

/* values * multiplier * 2^exponent as mantissas of the exponent that the largest needs. */
static void to_bfp(const int32_t *values, int32_t count, int32_t multiplier, int32_t exponent, tp_bfp *result) {
  int64_t largest = 0;
  for (int32_t i = 0; i < count; i++) {
    const int64_t magnitude = abs_s64(values[i]);
    largest = magnitude > largest ? magnitude : largest;
  }
  const int32_t shift = block_shift(largest * multiplier);
  result->exponent = exponent + shift;
  result->peak = 0;
  for (int32_t i = 0; i < count; i++) {
    put_mantissa(result, i, values[i], multiplier, shift);
  }
}

void tp_output_logits_s8(const tp_output_logits_params *params, const int8_t *input, int32_t *logits) {
  for (int32_t i = 0; i < params->size; i++) {
    logits[i] = tp_fixed_point(input[i] + params->input_offset, params->multiplier, params->shift);
  }
}

void tp_softmax_cross_entropy_s32(const tp_softmax_cross_entropy_params *params, const int32_t *logits, int32_t label,
                                  int32_t *loss, tp_bfp *d_logits, int32_t *logit_range, int32_t *scratch) {
  const int32_t classes = params->classes;
  int64_t largest = logits[0];
  for (int32_t i = 1; i < classes; i++) {
    largest = logits[i] > largest ? logits[i] : largest;
  }
  int64_t total = 0, distances = 0;
  for (int32_t i = 0; i < classes; i++) {
    scratch[i] = tp_exponential(logits[i] - largest, params->exponent);
    total += scratch[i];
    distances += largest - logits[i];
  }
  const int64_t of_label = scratch[label];
  const int64_t rest = total - of_label;
  const int64_t spread = divide((int64_t)params->smoothing * 2, classes);
  for (int32_t i = 0; i < classes; i++) {
    int64_t difference = divide(scratch[i] * ONE_Q31, total) - spread;
    if (i == label) {
      /* what is missing to 1 is known to 31 bits too where the label is nearly certain */
      difference = rest > of_label ? difference - ONE_Q31 : -divide(rest * ONE_Q31, total) - spread;
      difference += (int64_t)params->smoothing * 2;
    }
    scratch[i] = tp_saturate_s32(difference);
  }
  int64_t far = largest - logits[label];
  far += tp_round_wide((divide(distances, classes) - far) * params->smoothing, 30);
  const uint64_t sum = (uint64_t)(total < ONE_Q31 ? ONE_Q31 : total);
  const int64_t fine = far * ((int64_t)1 << (26 + params->exponent)) + tp_log_fixed(sum);
  loss[0] = tp_saturate_s32(tp_round_shift_s64(fine, 10));
  int32_t multiplier = 1, exponent = 0;
  if (params->weight_multiplier != NULL) {
    multiplier = params->weight_multiplier[label];
    exponent = params->weight_exponent[label];
    loss[0] = tp_fixed_point(loss[0], multiplier, -exponent);
  }
  to_bfp(scratch, classes, multiplier, exponent - 31, d_logits);
  observe(logits, classes, logit_range);
}

void tp_binary_cross_entropy_s32(const tp_binary_cross_entropy_params *params, const int32_t *logits,
                                 const int32_t *target, int32_t *loss, tp_bfp *d_logits, int32_t *logit_range,
                                 int32_t *scratch) {
  int64_t total = 0, logarithms = 0;
  for (int32_t i = 0; i < params->size; i++) {
    const int32_t t = tp_clamp_s32(target[i], 0, ONE_Q16);
    const int64_t magnitude = abs_s64(logits[i]);
    const int64_t exponential = tp_exponential(-magnitude, params->exponent);
    const int64_t small = divide(exponential * ONE_Q31, ONE_Q31 + exponential); /* sigmoid(-magnitude) */
    const int64_t missing = logits[i] >= 0 ? ONE_Q16 - t : t;
    const int64_t difference = missing * (1 << 15) - small;
    scratch[i] = tp_saturate_s32(logits[i] >= 0 ? difference : -difference);
    total += tp_round_shift_s64(magnitude * missing, -params->exponent);
    logarithms += tp_log_fixed((uint64_t)(ONE_Q31 + exponential));
  }
  total += tp_round_shift_s64(logarithms, 10);
  loss[0] = tp_saturate_s32(divide(total, params->size));
  to_bfp(scratch, params->size, params->gradient_multiplier, params->gradient_exponent, d_logits);
  observe(logits, params->size, logit_range);
}

/* logit - target of element i, in steps of the logits. */
static int32_t difference_from(const tp_mean_squared_error_params *params, int32_t i, int32_t logit,
                               const int32_t *target, const int8_t *input) {
  const int32_t wanted =
      target != NULL
          ? tp_saturate_s32(tp_round_shift_s64(target[i], 16 + params->exponent))
          : tp_fixed_point(input[i] + params->input_offset, params->input_multiplier, params->input_shift);
  return tp_saturate_s32((int64_t)logit - wanted);
}

void tp_mean_squared_error_s32(const tp_mean_squared_error_params *params, const int32_t *logits,
                               const int32_t *target, const int8_t *input, int32_t *loss, tp_bfp *d_logits,
                               int32_t *logit_range) {
  int64_t largest = 0;
  for (int32_t i = 0; i < params->size; i++) {
    const int64_t magnitude = abs_s64(difference_from(params, i, logits[i], target, input));
    largest = magnitude > largest ? magnitude : largest;
  }
  const int32_t dropped = tp_max_s32(bit_length(largest) - SQUARED_BITS, 0);
  const int32_t shift = block_shift(largest * params->gradient_multiplier);
  d_logits->exponent = params->gradient_exponent + shift;
  d_logits->peak = 0;
  int64_t total = 0;
  for (int32_t i = 0; i < params->size; i++) {
    const int32_t difference = difference_from(params, i, logits[i], target, input);
    const int64_t kept = tp_round_shift_s64(difference, dropped);
    total += kept * kept;
    put_mantissa(d_logits, i, difference, params->gradient_multiplier, shift);
  }
  const int32_t right = -16 - 2 * (params->exponent + dropped);
  if (right >= 0) {
    total = tp_round_shift_s64(total, right);
  } else {
    const int64_t limit = (int64_t)1 << (62 + right);
    total = (total < limit ? total : limit) * ((int64_t)1 << -right);
  }
  loss[0] = tp_saturate_s32(divide(total, params->size));
  observe(logits, params->size, logit_range);
}
