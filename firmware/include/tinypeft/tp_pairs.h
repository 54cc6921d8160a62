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

/* The peak of `count` mantissas. */
static inline int32_t tp_peak_s16(const int16_t *mantissa, int32_t count) {
  uint32_t largest = 0, smallest = 0;
  const int16_t *end = mantissa + count;
  for (; end - mantissa >= 8; mantissa += 8) {
    const uint32_t a = tp_load_word(mantissa), b = tp_load_word(mantissa + 2);
    const uint32_t c = tp_load_word(mantissa + 4), d = tp_load_word(mantissa + 6);
    largest = tp_max_s16x2(tp_max_s16x2(tp_max_s16x2(tp_max_s16x2(largest, a), b), c), d);
    smallest = tp_min_s16x2(tp_min_s16x2(tp_min_s16x2(tp_min_s16x2(smallest, a), b), c), d);
  }
  int32_t peak = tp_peak_of_pairs(largest, smallest);
  for (; mantissa < end; mantissa++) {
    peak = tp_max_s32(peak, tp_abs_s32(*mantissa));
  }
  return peak;
}

#endif
