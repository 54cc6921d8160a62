/* What the accumulators of an adapted layer start from: bias and the LoRA's addend, (lora_B . hidden) >> lora_shift. */
#ifndef TP_LORA_START_H
#define TP_LORA_START_H

#include "tp_types.h"

/* The adapter operands of a layer: lora_B (channels,rank), lora_shift (channels), whether any shift goes left.
 * A rank of 0 is no adapter: the others are then not read. */
typedef struct {
  const int8_t *lora_B;
  const int8_t *lora_shift;
  int32_t channels, rank;
  int left;
} tp_lora;

tp_lora tp_make_lora(const int8_t *lora_B, const int8_t *lora_shift, int32_t channels, int32_t rank);

/* How many positions share a pass over lora_B: three of rank 1. */
static inline int32_t tp_lora_positions(int32_t rank) { return rank == 1 ? 3 : rank > 0; }

/* start (positions,channels) = bias + what the LoRA adds at so many positions, up to tp_lora_positions(rank), for which there is room.
 * bias (channels) may be NULL, hidden is (positions,rank). */
void tp_lora_start(const tp_lora *lora, int32_t positions, const int32_t *bias, const int16_t *hidden, int32_t *start);

#endif
