/* What a LoRA adds to the accumulators of groups of positions, for kernels with Helium. Empty where there is none. */
#ifndef TP_LORA_MVE_H
#define TP_LORA_MVE_H

#include "tp_mve.h"

#if defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 1)

typedef struct {
  const int8_t *lora_B, *lora_shift;
  int32_t rank;
  int32_t each;    /* positions of a group; where they are three the last comes twice */
  int32_t groups;  /* most groups of a block */
  int16_t *hidden; /* (rank,groups,4) of a block */
  int32_t *starts; /* (groups,4), what accumulators of a channel start from; of groups of three (groups,2,4) */
} tp_lora_mve;

/* The LoRA of a convolution, with its part of the scratch. */
static inline tp_lora_mve tp_lora_in_mve(const tp_conv_mve_params *params, int32_t each, const int8_t *lora_B,
                                         const int8_t *lora_shift, void *scratch) {
  tp_lora_mve lora = {lora_B, lora_shift, params->rank, each, (params->block + each - 1) / each, NULL, NULL};
  lora.starts = scratch;
  lora.starts += params->direct ? 0 : (params->block * params->row_bytes + 16) / 4;
  lora.hidden = (int16_t *)(lora.starts + (each == 4 ? 4 : 8) * lora.groups);
  return lora;
}

/* The hidden values (count,rank) of a block in groups. Behind whole groups come the last positions once more. */
static TP_NOINLINE void tp_lora_groups_mve(const tp_lora_mve *lora, const int16_t *hidden, int32_t count) {
  const int32_t rank = lora->rank;
  int16_t *target = lora->hidden;
  for (int32_t first = 0; first < count; first += lora->each) {
    const int32_t begin = tp_max_s32(tp_min_s32(first, count - lora->each), 0);
    for (int32_t i = 0; i < 4; i++) {
      const int32_t position = tp_min_s32(begin + tp_min_s32(i, lora->each - 1), count - 1);
      for (int32_t r = 0; r < rank; r++) {
        target[r * 4 * lora->groups + i] = hidden[position * rank + r];
      }
    }
    target += 4;
  }
}

/* starts = bias + (lora_B . hidden) >> lora_shift of one channel, for `groups` groups from the number `group` on;
 * `step` from one to the next. */
static inline void tp_lora_channel_mve(const tp_lora_mve *lora, int32_t c, int32_t bias, int32_t group, int32_t groups,
                                       int32_t *starts, int32_t step) {
  const int8_t *b = lora->lora_B + c * lora->rank;
  const int32_t shift = -lora->lora_shift[c];
  const int16_t *hidden = lora->hidden + 4 * group;
  for (int32_t g = 0; g < groups; g++) {
    int32x4_t sum = vdupq_n_s32(0);
    const int16_t *h = hidden;
    for (int32_t r = 0; r < lora->rank; r++) {
      sum = vmlaq_n_s32(sum, vldrhq_s32(h), b[r]);
      h += 4 * lora->groups;
    }
    vstrwq_s32(starts, vaddq_n_s32(vrshlq_n_s32(sum, shift), bias));
    starts += step;
    hidden += 4;
  }
}

#endif
#endif
