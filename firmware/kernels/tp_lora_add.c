#include "tinypeft/tp_lora_add.h"

tp_lora tp_make_lora(const int8_t *lora_B, const int8_t *lora_shift, int32_t channels, int32_t rank) {
  tp_lora lora = {lora_B, lora_shift, rank, 0};
  for (int32_t c = 0; rank > 0 && c < channels; c++) {
    lora.left |= lora_shift[c] < 0;
  }
  return lora;
}

/* x >> shift, rounded half up, of twice x: rounding takes no constant that depends on the shift, 0 <= shift <= 24. */
static inline int32_t halved(int32_t twice, int32_t shift) { return ((twice >> shift) + 1) >> 1; }

/* Any rank up to 256, with which twice the sum stays inside int32. */
static TP_NOINLINE void add_any(const int8_t *b, const int8_t *shift, int32_t rank, int32_t count,
                                const int16_t *hidden, int32_t *acc) {
  for (int32_t c = 0; c < count; c++) {
    int32_t sum = 0;
    for (int32_t r = 0; r < rank; r++) {
      sum += *b++ * hidden[r];
    }
    /* a shift to the left stays inside int32, as the quantiser has bounded it */
    acc[c] += shift[c] < 0 ? (int32_t)((uint32_t)sum << -shift[c]) : halved(2 * sum, shift[c]);
  }
}

/* Rank 4, no shift to the left. */
static TP_NOINLINE void add_rank_4(const int8_t *b, const int8_t *shift, int32_t count, const int16_t *hidden,
                                   int32_t *acc) {
  const int32_t h0 = 2 * hidden[0], h1 = 2 * hidden[1], h2 = 2 * hidden[2], h3 = 2 * hidden[3];
  for (const int32_t *end = acc + count; acc != end;) {
    int32_t twice = h0 * *b++;
    twice += h1 * *b++;
    twice += h2 * *b++;
    twice += h3 * *b++;
    *acc++ += halved(twice, *shift++);
  }
}

/* Two positions of rank 1, no shift to the left. */
static TP_NOINLINE void add_rank_1_pair(const int8_t *b, const int8_t *shift, int32_t count, const int16_t *hidden,
                                        int32_t *acc0, int32_t *acc1) {
  const int32_t h0 = 2 * hidden[0], h1 = 2 * hidden[1];
  for (const int32_t *end = acc0 + count; acc0 != end;) {
    const int32_t value = *b++, right = *shift++;
    *acc0++ += halved(h0 * value, right);
    *acc1++ += halved(h1 * value, right);
  }
}

void tp_lora_add(const tp_lora *lora, int32_t first, int32_t count, const int16_t *hidden, int32_t *acc) {
  const int8_t *b = lora->lora_B + first * lora->rank, *shift = lora->lora_shift + first;
  if (lora->rank == 4 && !lora->left) {
    add_rank_4(b, shift, count, hidden, acc);
  } else if (lora->rank > 0) {
    add_any(b, shift, lora->rank, count, hidden, acc);
  }
}

void tp_lora_add_pair(const tp_lora *lora, int32_t first, int32_t count, const int16_t *hidden, int32_t *acc0,
                      int32_t *acc1) {
  if (lora->rank == 1 && !lora->left) {
    add_rank_1_pair(lora->lora_B + first, lora->lora_shift + first, count, hidden, acc0, acc1);
    return;
  }
  tp_lora_add(lora, first, count, hidden, acc0);
  tp_lora_add(lora, first, count, hidden + lora->rank, acc1);
}
