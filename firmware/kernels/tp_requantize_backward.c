#include "tinypeft/tp_arithmetic.h"
#include "tinypeft/tp_kernels.h"

static int32_t largest_s16(const int16_t *values, int32_t count) {
  int32_t largest = 0;
  for (int32_t i = 0; i < count; i++) {
    largest = tp_max_s32(largest, values[i]);
  }
  return largest;
}

/* How a mantissa is scaled by its channel. */
typedef struct {
  const int16_t *multiplier;
  int32_t shift;
} channel_scale;

static channel_scale begin(const tp_requantize_backward_params *params, const int16_t *multiplier, int32_t exponent,
                           const tp_bfp16 *d_output, tp_bfp16 *d_acc) {
  channel_scale scale = {multiplier, 0};
  d_acc->exponent = d_output->exponent;
  d_acc->peak = 0;
  if (multiplier != NULL) {
    scale.shift = tp_narrow_shift((int64_t)d_output->peak * largest_s16(multiplier, params->channels));
    d_acc->exponent = d_output->exponent + exponent + scale.shift;
  }
  return scale;
}

static void store(channel_scale scale, const tp_bfp16 *d_output, int32_t i, int32_t c, tp_bfp16 *d_acc) {
  int32_t value = d_output->mantissa[i];
  if (scale.multiplier != NULL) {
    value = tp_round_shift_s32(value * scale.multiplier[c], scale.shift);
  }
  d_acc->mantissa[i] = (int16_t)value;
  d_acc->peak = tp_max_s32(d_acc->peak, tp_abs_s32(value));
}

void tp_requantize_backward_s16(const tp_requantize_backward_params *params, const tp_bfp16 *d_output,
                                const int8_t *output, tp_bfp16 *d_acc) {
  const channel_scale scale = begin(params, params->multiplier, params->exponent, d_output, d_acc);
  for (int32_t p = 0; p < params->positions; p++) {
    for (int32_t c = 0; c < params->channels; c++) {
      const int32_t i = p * params->channels + c;
      if (output[i] > params->activation_min && output[i] < params->activation_max) {
        store(scale, d_output, i, c, d_acc);
      } else {
        d_acc->mantissa[i] = 0;
      }
    }
  }
}

void tp_requantize_backward_mask_s16(const tp_requantize_backward_params *params, const tp_bfp16 *d_output,
                                     const uint8_t *mask, tp_bfp16 *d_acc) {
  const channel_scale scale = begin(params, params->multiplier, params->exponent, d_output, d_acc);
  for (int32_t p = 0; p < params->positions; p++) {
    for (int32_t c = 0; c < params->channels; c++) {
      const int32_t i = p * params->channels + c;
      if (((uint32_t)mask[i / 8] >> (i % 8) & 1u) != 0u) {
        store(scale, d_output, i, c, d_acc);
      } else {
        d_acc->mantissa[i] = 0;
      }
    }
  }
}

void tp_channel_scale_backward_s16(const tp_requantize_backward_params *params, const tp_bfp16 *d_output,
                                   const int16_t *multiplier, const int32_t *exponent, tp_bfp16 *d_acc) {
  const channel_scale scale = begin(params, multiplier, exponent[0], d_output, d_acc);
  for (int32_t p = 0; p < params->positions; p++) {
    for (int32_t c = 0; c < params->channels; c++) {
      store(scale, d_output, p * params->channels + c, c, d_acc);
    }
  }
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
