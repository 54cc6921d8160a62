/* Sums of four int8 channels at a time, in halves of two words. */
#ifndef TP_CHANNEL_SUMS_H
#define TP_CHANNEL_SUMS_H

#include "tp_simd.h"

/* Values whose sum of int8 fits int16. */
#define TP_SHORT_SUM 255

/* Channels 0 and 2, and 1 and 3. */
typedef struct {
  uint32_t even, odd;
} tp_channel_sums;

static inline tp_channel_sums tp_add_pixel(tp_channel_sums sums, uint32_t word) {
  const tp_channel_sums result = {tp_sxtab16(sums.even, word), tp_sxtab16_ror8(sums.odd, word)};
  return result;
}

/* `count` pixels, `pixel` bytes apart; at most TP_SHORT_SUM in all. */
static inline tp_channel_sums tp_add_pixels(tp_channel_sums sums, const int8_t *x, int32_t count, int32_t pixel) {
  for (int32_t i = count >> 2; i > 0; i--) {
    const int8_t *third = x + 2 * pixel;
    const uint32_t word0 = tp_load_word(x), word1 = tp_load_word(x + pixel);
    const uint32_t word2 = tp_load_word(third), word3 = tp_load_word(third + pixel);
    sums = tp_add_pixel(tp_add_pixel(tp_add_pixel(tp_add_pixel(sums, word0), word1), word2), word3);
    x = third + 2 * pixel;
  }
  for (int32_t i = count & 3; i > 0; i--) {
    sums = tp_add_pixel(sums, tp_load_word(x));
    x += pixel;
  }
  return sums;
}

/* sums[0..4) += those of the four channels. */
static inline void tp_add_channel_sums(tp_channel_sums part, int32_t *sums) {
  sums[0] += (int16_t)part.even;
  sums[1] += (int16_t)part.odd;
  sums[2] += (int32_t)part.even >> 16;
  sums[3] += (int32_t)part.odd >> 16;
}

#endif
