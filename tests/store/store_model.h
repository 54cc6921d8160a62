/* What the store should hold after each step, said without flash; steps done to a store; and whether both agree. */
#ifndef STORE_MODEL_H
#define STORE_MODEL_H

#include "tinypeft/tp_store.h"

typedef enum { MOUNT, UPLOAD, ABANDON, ACTIVATE, CONFIRM, REVERT, DELETE, COLLECT, FORMAT } step_kind;

/* One change. UPLOAD: `part` of `id`, `bytes` long, as version `value`; ABANDON: the same, but not its end; CONFIRM: with
 * counter `value`; ACTIVATE: id NULL is the base model. */
typedef struct {
  step_kind kind;
  const char *id;
  tp_store_part part;
  uint32_t bytes, value;
} step;

typedef struct {
  char id[TP_ID_BYTES];
  int there[TP_STORE_PARTS];
  uint32_t bytes[TP_STORE_PARTS], version[TP_STORE_PARTS];
  int on_test;
  uint32_t boots, counter;
} model_entry;

typedef struct {
  model_entry entries[TP_STORE_ADAPTERS];
  uint32_t count;
  char active[TP_ID_BYTES];
  uint32_t test_boots;
  uint8_t erased;
} model;

/* The model after a step that succeeds. */
void model_step(model *expected, const step *done);

/* The same on a store; the status of the first call that fails. */
tp_status store_step(tp_store *store, const tp_store_config *config, const step *done);

/* NULL where `store` holds what the model says, every byte of every object; else what is wrong. */
const char *model_differs(const model *expected, const tp_store *store);

#endif
