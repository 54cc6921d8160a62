/* The float32 masters of an adapter as weighted sums see them: a generated table. */
#ifndef TP_MASTERS_H
#define TP_MASTERS_H

#include <stdint.h>

typedef enum {
  TP_MASTER_OTHER, /* summed as its difference from a fresh adapter's */
  TP_MASTER_LORA_A,
  TP_MASTER_LORA_B /* right behind its A */
} tp_master_role;

/* outer * rank * inner elements from `offset` of training(); outer and rank are 1 where it has no rank. */
typedef struct {
  uint32_t offset, outer, inner;
  uint16_t rank, role;
} tp_master;

/* All of them. Their sums fit arena() behind `arena_offset`, in front of which it is used while masters are restored. */
typedef struct {
  const tp_master *masters;
  uint32_t count;
  uint32_t elements; /* of all masters */
  uint32_t arena_offset;
  uint32_t logit_range; /* where training() has two int32, the logits seen; TP_NO_LOGIT_RANGE: it has none */
} tp_masters;

#define TP_NO_LOGIT_RANGE 0xFFFFFFFFu

#endif
