/* The table from which the routines of tp_kernels_dsp_lora.h take what an adapter adds. */
#ifndef TP_LORA_TABLE_DSP_H
#define TP_LORA_TABLE_DSP_H

#include "tp_kernels_dsp_lora.h"

/* An adapter, and the memory for what is made of it. */
typedef struct {
  const tp_lora_dsp_params *params;
  const int8_t *lora_B, *lora_shift;
  int32_t *table;
  uint32_t *words; /* of hidden values */
  int8_t *outputs; /* of two positions, where channels lie apart */
  void *rest;      /* of the scratch */
  int32_t peak;    /* the largest |hidden| */
  int32_t least;   /* the least shift with which no addend leaves the limit, or its sum int32 */
  int32_t shift;   /* of hidden values, for a rank of 1 */
  int exact;       /* whether addends have to be computed one by one, as they do not fit the routine */
} tp_lora_table;

/* The table for hidden values that are all known; where it is `exact`, its memory alone. */
tp_lora_table tp_make_lora_table(const tp_lora_dsp_params *params, const int16_t *hidden, int32_t count,
                                 const int8_t *lora_B, const int8_t *lora_shift, void *scratch);

/* The table for a single position, the second of two or one alone: the addends themselves, less than 2^23. */
tp_lora_positions tp_put_addends(const tp_lora_table *from, const int16_t *hidden, int second);

/* The outputs of all lone channels at `count` positions. */
void tp_put_lone_channels(const tp_lora_table *from, const int16_t *hidden, int32_t count, int8_t *output);

#endif
