#include "tinypeft/tp_lora_start.h"

#include <string.h>

tp_lora tp_make_lora(const int8_t *lora_B, const int8_t *lora_shift, int32_t channels, int32_t rank) {
  tp_lora lora = {lora_B, lora_shift, channels, rank, 0};
  for (int32_t c = 0; rank > 0 && c < channels; c++) {
    lora.left |= lora_shift[c] < 0;
  }
  return lora;
}

/* x >> shift, rounded half up, of twice x: rounding takes no constant that depends on the shift, 0 <= shift <= 24. */
static inline int32_t halved(int32_t twice, int32_t shift) { return ((twice >> shift) + 1) >> 1; }

/* Any rank up to 256, with which twice the sum stays inside int32. */
static TP_NOINLINE void start_one(const tp_lora *lora, const int32_t *bias, const int16_t *hidden, int32_t *start) {
  const int8_t *b = lora->lora_B;
  const int8_t *shift = lora->lora_shift;
  for (int32_t c = 0; c < lora->channels; c++) {
    int32_t sum = 0;
    for (int32_t r = 0; r < lora->rank; r++) {
      sum += *b++ * hidden[r];
    }
    /* a shift to the left stays inside int32, as the quantiser has bounded it */
    start[c] = bias[c] + (shift[c] < 0 ? (int32_t)((uint32_t)sum << -shift[c]) : halved(2 * sum, shift[c]));
  }
}

/* Rank 4, no shift to the left. */
static TP_NOINLINE void start_rank_4(const tp_lora *lora, const int32_t *bias, const int16_t *hidden, int32_t *start) {
  const int8_t *b = lora->lora_B;
  const int8_t *shift = lora->lora_shift;
  const int32_t h0 = hidden[0];
  const int32_t h1 = hidden[1];
  const int32_t h2 = hidden[2];
  const int32_t h3 = hidden[3];
  for (int32_t c = lora->channels; c > 0; c--) {
    int32_t sum = h0 * *b++;
    sum += h1 * *b++;
    sum += h2 * *b++;
    sum += h3 * *b++;
    *start++ = *bias++ + halved(2 * sum, *shift++);
  }
}

/* Three positions of rank 1, no shift to the left, given twice their hidden values; bias may be the first row of start. */
static TP_NOINLINE void start_three(const tp_lora *lora, const int32_t *bias, const int32_t twice[3], int32_t *start) {
  const int8_t *lora_B = lora->lora_B;
  const int8_t *lora_shift = lora->lora_shift;
  const int8_t *end = lora_B + lora->channels;
  const int32_t twice_0 = twice[0];
  const int32_t twice_1 = twice[1];
  const int32_t twice_2 = twice[2];
  int32_t *second = start + lora->channels;
  int32_t *third = second + lora->channels;
  while (lora_B < end) {
    const int32_t b = *lora_B++;
    const int32_t shift = *lora_shift++;
    const int32_t base = *bias++;
    *start++ = base + halved(twice_0 * b, shift);
    *second++ = base + halved(twice_1 * b, shift);
    *third++ = base + halved(twice_2 * b, shift);
  }
}

void tp_lora_start(const tp_lora *lora, int32_t positions, const int32_t *bias, const int16_t *hidden, int32_t *start) {
  const int32_t *from = bias;
  if (bias == NULL) {
    memset(start, 0, (size_t)(positions * lora->channels) * sizeof *start);
    from = start;
  }
  if (positions > 1 && !lora->left) {
    const int32_t twice[3] = {2 * hidden[0], 2 * hidden[1], positions > 2 ? 2 * hidden[2] : 0};
    start_three(lora, from, twice, start);
    return;
  }
  for (int32_t p = 0; p < positions; p++) {
    if (lora->rank == 4 && !lora->left) {
      start_rank_4(lora, from, hidden, start);
    } else {
      start_one(lora, from, hidden, start);
    }
    hidden += lora->rank;
    start += lora->channels;
    from = bias != NULL ? bias : start;
  }
}
