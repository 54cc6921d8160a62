/* What devices do between which the power may fail. */
#ifndef SCENARIOS_H
#define SCENARIOS_H

#include "store_model.h"

/* As long as a slot. */
#define FULL 0xFFFFFFFFu

#define CANDIDATE(name, length, version) \
  { UPLOAD, name, TP_STORE_CANDIDATE, length, version }
#define CHECKPOINT(name, length, version) \
  { UPLOAD, name, TP_STORE_CHECKPOINT, length, version }
#define ACT(what, name, number) \
  { what, name, TP_STORE_PARTS, 0, number }
#define SERVE(name, length, version) \
  CANDIDATE(name, length, version), ACT(ACTIVATE, name, 0), ACT(CONFIRM, name, version)

/* After a cut: the mount, and a further update. */
extern const step RECOVERY[];
#define RECOVERY_STEPS 4u

typedef struct {
  const char *name;
  uint32_t setup; /* steps that are not cut: other scenarios have them */
  uint32_t count;
  const step *steps;
} scenario;

extern const scenario SCENARIOS[];
#define SCENARIOS_COUNT 9u

#endif
