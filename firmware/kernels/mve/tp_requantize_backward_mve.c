#include "tinypeft/tp_mve.h"
#include "tinypeft/tp_narrowing.h"

#if defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 1) && TP_GRADIENT_BITS == 16

/* What all elements share, and the largest result so far. */
typedef struct {
  int32_t low, high;         /* what passes is between them */
  const int16_t *multiplier; /* of each channel, NULL for 1 */
  int32_t shift;             /* of products, to the left */
  uint32x4_t peak;
} state;

static int32_t largest(const int16_t *values, int32_t count) {
  int32_t result = 0;
  for (int32_t i = 0; i < count; i++) {
    result = tp_max_s32(result, values[i]);
  }
  return result;
}

static state begin(const tp_requantize_backward_params *params, const int16_t *multiplier, const tp_bfp *d_output) {
  state s = {params->activation_min, params->activation_max, multiplier, 0, vdupq_n_u32(0)};
  if (multiplier != NULL) {
    s.shift = -tp_narrow_shift((int64_t)d_output->peak * largest(multiplier, params->channels), TP_BFP_MAX);
  }
  return s;
}

static void finish(const state *s, int32_t exponent, const tp_bfp *d_output, tp_bfp *d_acc) {
  d_acc->exponent = d_output->exponent - s->shift + (s->multiplier != NULL ? exponent : 0);
  d_acc->peak = (int32_t)vmaxvq_u32(0, s->peak);
}

/* Eight mantissas, or zeros, times the multipliers of the channels from c on, to the lanes of `some`. */
static inline void put(state *s, int16x8_t mantissa, int32_t c, mve_pred16_t some, int16_t *target) {
  if (s->multiplier == NULL) {
    s->peak = vmaxaq_s32(vmaxaq_s32(s->peak, vmovlbq_s16(mantissa)), vmovltq_s16(mantissa));
    vstrhq_p_s16(target, mantissa, some);
    return;
  }
  const int16x8_t multiplier = vldrhq_z_s16(s->multiplier + c, some);
  const int32x4_t even = vrshlq_n_s32(vmullbq_int_s16(mantissa, multiplier), s->shift);
  const int32x4_t odd = vrshlq_n_s32(vmulltq_int_s16(mantissa, multiplier), s->shift);
  s->peak = vmaxaq_s32(vmaxaq_s32(s->peak, even), odd);
  vstrhq_p_s16(target, vmovntq_s32(vreinterpretq_s16_s32(even), odd), some);
}

void tp_requantize_backward_mve_s16(const tp_requantize_backward_params *params, const tp_bfp *d_output,
                                    const int8_t *output, tp_bfp *d_acc) {
  state s = begin(params, params->multiplier, d_output);
  const int16_t *from = d_output->mantissa;
  int16_t *to = d_acc->mantissa;
  for (int32_t p = 0; p < params->positions; p++) {
    for (int32_t c = 0; c < params->channels; c += 8) {
      const mve_pred16_t some = vctp16q((uint32_t)(params->channels - c));
      const int16x8_t q = vldrbq_z_s16(output + c, some);
      const mve_pred16_t passed = vcmpgtq_m_n_s16(q, (int16_t)s.low, vcmpltq_m_n_s16(q, (int16_t)s.high, some));
      put(&s, vldrhq_z_s16(from + c, passed), c, some, to + c);
    }
    from += params->channels;
    output += params->channels;
    to += params->channels;
  }
  finish(&s, params->exponent, d_output, d_acc);
}

void tp_requantize_backward_mask_mve_s16(const tp_requantize_backward_params *params, const tp_bfp *d_output,
                                         const uint8_t *mask, tp_bfp *d_acc) {
  static const uint16_t bits[8] = {1, 2, 4, 8, 16, 32, 64, 128};
  const uint16x8_t bit = vldrhq_u16(bits);
  state s = begin(params, params->multiplier, d_output);
  const int16_t *from = d_output->mantissa;
  int16_t *to = d_acc->mantissa;
  for (int32_t p = 0; p < params->positions; p++) {
    for (int32_t c = 0; c < params->channels; c += 8) {
      const mve_pred16_t passed = vcmpeqq_u16(vandq_u16(bit, vdupq_n_u16(*mask++)), bit);
      put(&s, vldrhq_z_s16(from + c, passed), c, vctp16q(8), to + c);
    }
    from += params->channels;
    to += params->channels;
  }
  finish(&s, params->exponent, d_output, d_acc);
}

void tp_channel_scale_backward_mve_s16(const tp_requantize_backward_params *params, const tp_bfp *d_output,
                                       const int16_t *multiplier, const int32_t *exponent, tp_bfp *d_acc) {
  state s = begin(params, multiplier, d_output);
  const int16_t *from = d_output->mantissa;
  int16_t *to = d_acc->mantissa;
  for (int32_t p = 0; p < params->positions; p++) {
    for (int32_t c = 0; c < params->channels; c += 8) {
      const mve_pred16_t some = vctp16q((uint32_t)(params->channels - c));
      put(&s, vldrhq_z_s16(from + c, some), c, some, to + c);
    }
    from += params->channels;
    to += params->channels;
  }
  finish(&s, exponent[0], d_output, d_acc);
}

#endif
