/* A state at a fixed place that no section covers, so that neither start-up nor loader writes there. */
#include "retained.h"

#include <stddef.h>

#include "tinypeft/tp_crc.h"

extern tp_retained_state tp_retained; /* set by the linker script */

#define CHECKED offsetof(tp_retained_state, check)

static void seal(void) { tp_retained.check = tp_crc32(0, &tp_retained, CHECKED); }

void tp_retained_begin(void) {
  /* A memory full of zeros has no valid state either: no boot is 0. */
  if (tp_retained.boots == 0 || tp_retained.check != tp_crc32(0, &tp_retained, CHECKED)) {
    tp_retained = (tp_retained_state){0};
  }
  tp_retained.boots++;
  seal();
}

const tp_retained_state *tp_retained_read(void) { return &tp_retained; }

void tp_retained_write(uint32_t counter, uint32_t stage) {
  tp_retained.counter = counter;
  tp_retained.stage = stage;
  seal();
}
