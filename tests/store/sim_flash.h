/* Flash that is simulated down to what a power cut leaves behind, and that watches over the rules of tp_flash.h. */
#ifndef SIM_FLASH_H
#define SIM_FLASH_H

#include "tinypeft/tp_flash.h"

#define SIM_BYTES_MAX (64u * 1024u)
#define SIM_SECTORS_MAX 64u
#define SIM_TRACE_MAX 4096u

/* How an operation is cut: before it begins; programming after some bytes, the unit being half there or a fault when
 * read; an erasure with what it has not reached yet. */
typedef enum {
  SIM_BEFORE,
  SIM_PREFIX,
  SIM_FAULT,
  SIM_FIRST_HALF,
  SIM_SECOND_HALF,
  SIM_SCATTERED,
  SIM_WEAK, /* reads as erased, and is not */
  SIM_CUTS
} sim_cut;

typedef struct {
  uint8_t bytes[SIM_BYTES_MAX];
  uint8_t unit[SIM_BYTES_MAX]; /* of the first byte of each unit: 0 erased, 1 programmed, 2 a fault when read */
  uint8_t weak[SIM_SECTORS_MAX];
  uint32_t erases[SIM_SECTORS_MAX];
} sim_content;

typedef struct {
  int is_erase;
  uint32_t offset, bytes;
} sim_operation;

typedef struct {
  tp_flash flash;
  sim_content content;
  uint32_t operations; /* programmed and erased so far */
  uint32_t cut_at;     /* the operation that is cut; 0: none */
  sim_cut cut;
  uint32_t cut_bytes; /* of SIM_PREFIX and SIM_FAULT */
  int dead;           /* the power has failed: nothing happens any more */
  sim_operation trace[SIM_TRACE_MAX]; /* the operations so far */
  const char *violation;              /* a rule that was broken, or NULL */
  uint32_t bad; /* so many more times, programming leaves nothing, and says so not */
  int fails;    /* every operation is TP_ERR_FLASH: programming after it was done, erasing before */
} sim_flash;

/* Erased flash. */
void sim_init(sim_flash *sim, uint32_t sector_bytes, uint32_t sectors, uint32_t write_unit, uint8_t erased);

/* Power on: counts operations from 0, and cuts the `cut_at`th. */
void sim_power(sim_flash *sim, uint32_t cut_at, sim_cut cut, uint32_t cut_bytes);

#endif
