#include "tinypeft/tp_kernels.h"
#include "tinypeft/tp_kernels_dsp_backward.h"
#include "tinypeft/tp_pairs.h"

#define EVERY_BYTE 0x01010101u

/* What the loops keep in registers. */
typedef struct {
  int32_t half, shift;
  uint32_t largest, smallest;
} narrowing;

/* Where no multiplier scales the channels, nothing is shifted. */
static narrowing begin(const tp_requantize_backward_params *params, const tp_bfp *d_output) {
  narrowing to = {0, 0, 0, 0};
  if (params->multiplier != NULL) {
    int32_t largest = 0;
    for (int32_t c = 0; c < params->channels; c++) {
      largest = tp_max_s32(largest, params->multiplier[c]);
    }
    to.shift = tp_narrow_shift((int64_t)d_output->peak * largest, TP_BFP_MAX);
    to.half = tp_half_of(to.shift);
  }
  return to;
}

static void finish(const narrowing *to, const tp_requantize_backward_params *params, const tp_bfp *d_output,
                   tp_bfp *d_acc) {
  d_acc->exponent = d_output->exponent + to->shift + (params->multiplier != NULL ? params->exponent : 0);
  d_acc->peak = tp_peak_of_pairs(to->largest, to->smallest);
}

/* Two mantissas, times two multipliers where it `scales`, narrowed, where `passed` has ones; else 0. */
static inline void put(int scales, const int16_t *g, const int16_t *multiplier, uint32_t passed, int16_t *result,
                       narrowing *to) {
  uint32_t pair = tp_load_word(g);
  if (scales) {
    const uint32_t multipliers = tp_load_word(multiplier);
    pair = tp_make_pair(tp_smlabb(pair, multipliers, to->half) >> to->shift,
                        tp_smlatt(pair, multipliers, to->half) >> to->shift);
  }
  pair &= passed;
  tp_store_word(result, pair);
  to->largest = tp_max_s16x2(to->largest, pair);
  to->smallest = tp_min_s16x2(to->smallest, pair);
}

/* The int8 outputs from element `first` on, `count` of them. */
static inline void from_outputs(int scales, const int16_t *g, const int16_t *multiplier, int32_t count,
                                const int8_t *output, uint32_t low, uint32_t high, int16_t *result, narrowing *to) {
  for (const int16_t *end = g + count; g < end; g += 4, result += 4, multiplier += scales ? 4 : 0) {
    const uint32_t inside = tp_bytes_between(tp_load_word(output), low, high, ~0u);
    const uint32_t even = tp_sxtb16(inside);
    const uint32_t odd = tp_sxtb16_ror8(inside);
    put(scales, g, multiplier, tp_pkhbt(even, odd), result, to);
    put(scales, g + 2, multiplier + (scales ? 2 : 0), tp_pkhtb(odd, even), result + 2, to);
    output += 4;
  }
}

/* Ones in the halves whose bits, the lowest two, are 1. */
static inline uint32_t ones(uint32_t bits) {
  return tp_make_pair(-(int32_t)(bits & 1u), -(int32_t)(bits >> 1 & 1u));
}

/* The same of outputs that have a mask. */
static inline void from_mask(int scales, const int16_t *g, const int16_t *multiplier, int32_t count,
                             const uint8_t *mask, int16_t *result, narrowing *to) {
  const int32_t step = scales ? 2 : 0;
  for (const int16_t *end = g + count; g < end; g += 8, result += 8, multiplier += 4 * step) {
    const uint32_t bits = *mask++;
    put(scales, g, multiplier, ones(bits), result, to);
    put(scales, g + 2, multiplier + step, ones(bits >> 2), result + 2, to);
    put(scales, g + 4, multiplier + 2 * step, ones(bits >> 4), result + 4, to);
    put(scales, g + 6, multiplier + 3 * step, ones(bits >> 6), result + 6, to);
  }
}

/* All positions: with multipliers each by itself, without them in one loop. */
static TP_NOINLINE narrowing all_from_outputs(const tp_requantize_backward_params *params, const int16_t *g,
                                              const int8_t *output, int16_t *result, narrowing to) {
  const uint32_t low = (uint32_t)(params->activation_min & 0xFF) * EVERY_BYTE;
  const uint32_t high = (uint32_t)(params->activation_max & 0xFF) * EVERY_BYTE;
  const int32_t size = params->positions * params->channels;
  if (params->multiplier == NULL) {
    from_outputs(0, g, NULL, size, output, low, high, result, &to);
    return to;
  }
  for (int32_t i = 0; i < size; i += params->channels) {
    from_outputs(1, g + i, params->multiplier, params->channels, output + i, low, high, result + i, &to);
  }
  return to;
}

static TP_NOINLINE narrowing all_from_mask(const tp_requantize_backward_params *params, const int16_t *g,
                                           const uint8_t *mask, int16_t *result, narrowing to) {
  const int32_t size = params->positions * params->channels;
  if (params->multiplier == NULL) {
    from_mask(0, g, NULL, size, mask, result, &to);
    return to;
  }
  for (int32_t i = 0; i < size; i += params->channels) {
    from_mask(1, g + i, params->multiplier, params->channels, mask, result + i, &to);
    mask += params->channels / 8;
  }
  return to;
}

void tp_requantize_backward_dsp_s16(const tp_requantize_backward_params *params, const tp_bfp *d_output,
                                    const int8_t *output, tp_bfp *d_acc) {
  const narrowing to =
      all_from_outputs(params, d_output->mantissa, output, d_acc->mantissa, begin(params, d_output));
  finish(&to, params, d_output, d_acc);
}

void tp_requantize_backward_mask_dsp_s16(const tp_requantize_backward_params *params, const tp_bfp *d_output,
                                         const uint8_t *mask, tp_bfp *d_acc) {
  const narrowing to = all_from_mask(params, d_output->mantissa, mask, d_acc->mantissa, begin(params, d_output));
  finish(&to, params, d_output, d_acc);
}
