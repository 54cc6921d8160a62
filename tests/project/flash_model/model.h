/* What the models of flash controllers share: the memory, what they saw, and faults to order. */
#ifndef MODEL_H
#define MODEL_H

#include <stdint.h>

#include "tinypeft/tp_flash.h"
#include "tp_board_config.h"

#define MODEL_BYTES (TP_STORAGE_SECTORS * TP_STORAGE_SECTOR_BYTES)

/* Counted since the last model_reset(). */
typedef struct {
  uint32_t programmed, erased, polls, cache_resets;
  uint32_t violations; /* accesses that the manual forbids; the first one is told */
  char first[80];
} model_counts;

extern model_counts model_seen;
extern uint8_t model_memory[MODEL_BYTES];
extern int model_absent;       /* no controller: every register reads 0 */
extern uint32_t model_fails_at; /* the programming of the word at this address fails; 0: none does */
extern uint32_t model_busy;    /* polls that an operation takes */

void model_violation(const char *what);

/* As after a reset of the chip; the memory keeps its content. */
void model_reset(void);

/* Whether all is as it was before any call: locked, or read only. */
int model_at_rest(void);

/* The word at `address` in the storage; a violation outside. */
uint8_t *model_word(uint32_t address);

#endif
