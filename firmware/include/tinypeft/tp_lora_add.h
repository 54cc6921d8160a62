/* What a LoRA adds to the accumulators of an adapted layer: (lora_B . hidden) >> lora_shift, rounded half up. */
#ifndef TP_LORA_ADD_H
#define TP_LORA_ADD_H

#include "tp_types.h"

/* The adapter operands of a layer: lora_B (channels,rank), lora_shift (channels), whether any shift goes left.
 * A rank of 0 is no adapter: the others are then not read. */
typedef struct {
  const int8_t *lora_B;
  const int8_t *lora_shift;
  int32_t rank;
  int left;
} tp_lora;

tp_lora tp_make_lora(const int8_t *lora_B, const int8_t *lora_shift, int32_t channels, int32_t rank);

/* Adds to the accumulators of `count` channels from `first` on what hidden (rank) gives; nothing if rank is 0. */
void tp_lora_add(const tp_lora *lora, int32_t first, int32_t count, const int16_t *hidden, int32_t *acc);

/* The same of two positions: hidden (2,rank), accumulators from acc0 and from acc1 on. */
void tp_lora_add_pair(const tp_lora *lora, int32_t first, int32_t count, const int16_t *hidden, int32_t *acc0,
                      int32_t *acc1);

#endif
