/* Secure memory that a reset leaves as it is. It is lost with the power: a product keeps such a state in flash or in
 * one-time programmable memory. */
#ifndef RETAINED_H
#define RETAINED_H

#include <stdint.h>

typedef struct {
  uint32_t boots;   /* resets since power came, this one included */
  uint32_t counter; /* of tp_monotonic_counter */
  uint32_t stage;   /* of the demonstration */
  uint32_t check;   /* CRC-32 of what is in front */
} tp_retained_state;

/* What lies in memory, or a fresh state where that is damaged; counts the boot. Called once. */
void tp_retained_begin(void);

const tp_retained_state *tp_retained_read(void);

/* Remember counter and stage. */
void tp_retained_write(uint32_t counter, uint32_t stage);

#endif
