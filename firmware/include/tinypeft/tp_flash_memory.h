/* Flash in memory that the caller owns: for boards without flash of their own, under emulation and in tests. */
#ifndef TP_FLASH_MEMORY_H
#define TP_FLASH_MEMORY_H

#include "tp_flash.h"

typedef struct {
  tp_flash flash; /* pass &memory.flash on */
  uint8_t *bytes;
} tp_flash_memory;

/* Flash in the sector_bytes * sectors bytes at `bytes`, which stay as they are; `memory` must not move afterwards. As
 * strict as hardware: TP_ERR_FLASH for a range outside, one that is not whole units, or a unit that is not erased. */
void tp_flash_memory_init(tp_flash_memory *memory, uint8_t *bytes, uint32_t sector_bytes, uint32_t sectors,
                          uint32_t write_unit, uint8_t erased);

#endif
