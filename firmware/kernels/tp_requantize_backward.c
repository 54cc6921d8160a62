#include "tinypeft/tp_arithmetic.h"
#include "tinypeft/tp_kernels.h"
#include "tinypeft/tp_narrowing.h"

static int32_t largest_s16(const int16_t *values, int32_t count) {
  int32_t largest = 0;
  for (int32_t i = 0; i < count; i++) {
    largest = tp_max_s32(largest, values[i]);
  }
  return largest;
}

/* Where no multiplier scales the channels, nothing is shifted. */
static tp_narrowing begin(const tp_requantize_backward_params *params, const int16_t *multiplier,
                          const tp_bfp *d_output) {
  if (multiplier == NULL) {
    return tp_as_they_are();
  }
  return tp_narrow_within((int64_t)d_output->peak * largest_s16(multiplier, params->channels));
}

static int32_t scaled(const int16_t *multiplier, const tp_bfp *d_output, int32_t i, int32_t c) {
  return multiplier != NULL ? d_output->mantissa[i] * multiplier[c] : d_output->mantissa[i];
}

static void finish(const tp_narrowing *to, const int16_t *multiplier, int32_t exponent, const tp_bfp *d_output,
                   tp_bfp *d_acc) {
  tp_finish(to, d_output->exponent + (multiplier != NULL ? exponent : 0), d_acc);
}

void tp_requantize_backward_s16(const tp_requantize_backward_params *params, const tp_bfp *d_output,
                                const int8_t *output, tp_bfp *d_acc) {
  const int16_t *multiplier = params->multiplier;
  tp_narrowing to = begin(params, multiplier, d_output);
  do {
    for (int32_t p = 0; p < params->positions; p++) {
      for (int32_t c = 0; c < params->channels; c++) {
        const int32_t i = p * params->channels + c;
        const int passed = output[i] > params->activation_min && output[i] < params->activation_max;
        tp_put_mantissa(&to, passed ? scaled(multiplier, d_output, i, c) : 0, &d_acc->mantissa[i]);
      }
    }
  } while (tp_next_pass(&to));
  finish(&to, multiplier, params->exponent, d_output, d_acc);
}

void tp_requantize_backward_mask_s16(const tp_requantize_backward_params *params, const tp_bfp *d_output,
                                     const uint8_t *mask, tp_bfp *d_acc) {
  const int16_t *multiplier = params->multiplier;
  tp_narrowing to = begin(params, multiplier, d_output);
  do {
    for (int32_t p = 0; p < params->positions; p++) {
      for (int32_t c = 0; c < params->channels; c++) {
        const int32_t i = p * params->channels + c;
        const int passed = ((uint32_t)mask[i / 8] >> (i % 8) & 1u) != 0u;
        tp_put_mantissa(&to, passed ? scaled(multiplier, d_output, i, c) : 0, &d_acc->mantissa[i]);
      }
    }
  } while (tp_next_pass(&to));
  finish(&to, multiplier, params->exponent, d_output, d_acc);
}

void tp_channel_scale_backward_s16(const tp_requantize_backward_params *params, const tp_bfp *d_output,
                                   const int16_t *multiplier, const int32_t *exponent, tp_bfp *d_acc) {
  tp_narrowing to = begin(params, multiplier, d_output);
  do {
    for (int32_t p = 0; p < params->positions; p++) {
      for (int32_t c = 0; c < params->channels; c++) {
        const int32_t i = p * params->channels + c;
        tp_put_mantissa(&to, scaled(multiplier, d_output, i, c), &d_acc->mantissa[i]);
      }
    }
  } while (tp_next_pass(&to));
  finish(&to, multiplier, exponent[0], d_output, d_acc);
}

void tp_clamp_mask_s8(const tp_clamp_mask_params *params, const int8_t *output, uint8_t *mask) {
  for (int32_t i = 0; i < params->size; i += 8) {
    uint32_t bits = 0;
    for (int32_t j = i; j < tp_min_s32(i + 8, params->size); j++) {
      if (output[j] > params->activation_min && output[j] < params->activation_max) {
        bits |= 1u << (j - i);
      }
    }
    mask[i / 8] = (uint8_t)bits;
  }
}
