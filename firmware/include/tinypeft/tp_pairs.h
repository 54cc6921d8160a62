/* Pairs of int16 in a word, for cores with the DSP extension. */
#ifndef TP_PAIRS_H
#define TP_PAIRS_H

#include "tp_arithmetic.h"
#include "tp_simd.h"

static inline int32_t tp_low_half(uint32_t pair) { return (int16_t)(pair & 0xFFFFu); }
static inline int32_t tp_high_half(uint32_t pair) { return (int32_t)pair >> 16; }

static inline uint32_t tp_make_pair(int32_t low, int32_t high) { return tp_pkhbt((uint32_t)low, (uint32_t)high); }

/* The largest magnitude, of extremes that start from 0. */
static inline int32_t tp_peak_of_pairs(uint32_t largest, uint32_t smallest) {
  const int32_t high = tp_max_s32(tp_low_half(largest), tp_high_half(largest));
  return tp_max_s32(high, -tp_min_s32(tp_low_half(smallest), tp_high_half(smallest)));
}

/* What is added in front of a shift to the right for it to round. */
static inline int32_t tp_half_of(int32_t shift) { return shift > 0 ? (int32_t)1 << (shift - 1) : 0; }

/* x >> shift, rounded half up, without a half that depends on it: 0 <= shift <= 31, and twice x is within int32. */
static inline int32_t tp_round_doubled(int32_t x, int32_t shift) { return ((2 * x >> shift) + 1) >> 1; }

/* The largest square of mantissas, of magnitudes up to TP_BFP_MAX: four squares, whose sum is below 2^32, hold no
 * larger one unless that sum is larger. */
static inline void tp_raise_square(int32_t *square, uint32_t a, uint32_t b) {
  if (__builtin_expect((uint32_t)tp_smlad(a, a, tp_smuad(b, b)) > (uint32_t)*square, 0)) {
    const int32_t first = tp_max_s32(tp_smulbb(a, a), tp_smultt(a, a));
    const int32_t second = tp_max_s32(tp_smulbb(b, b), tp_smultt(b, b));
    *square = tp_max_s32(*square, tp_max_s32(first, second));
  }
}

/* The magnitude that it is the square of, from its highest bit to the lowest. */
static inline int32_t tp_peak_of_square(int32_t square) {
  int32_t peak = 0;
  for (int32_t bit = 1 << 14; bit > 0; bit >>= 1) {
    peak += (peak + bit) * (peak + bit) <= square ? bit : 0;
  }
  return peak;
}

/* The peak of `count` mantissas. */
static inline int32_t tp_peak_s16(const int16_t *mantissa, int32_t count) {
  int32_t square = 0;
  const int16_t *end = mantissa + count, *whole = mantissa + count / 16 * 16;
  for (; mantissa < whole; mantissa += 16) {
    const uint32_t a = tp_load_word(mantissa), b = tp_load_word(mantissa + 2);
    const uint32_t c = tp_load_word(mantissa + 4), d = tp_load_word(mantissa + 6);
    const uint32_t e = tp_load_word(mantissa + 8), f = tp_load_word(mantissa + 10);
    const uint32_t g = tp_load_word(mantissa + 12), h = tp_load_word(mantissa + 14);
    tp_raise_square(&square, a, b);
    tp_raise_square(&square, c, d);
    tp_raise_square(&square, e, f);
    tp_raise_square(&square, g, h);
  }
  for (; mantissa < end; mantissa++) {
    tp_raise_square(&square, tp_make_pair(*mantissa, 0), 0);
  }
  return tp_peak_of_square(square);
}

#endif
