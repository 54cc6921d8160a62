/* Flash memory behind callbacks: what the store is built on, and the only way in which it touches hardware. */
#ifndef TP_FLASH_H
#define TP_FLASH_H

#include "tp_types.h"

/* The largest write unit in bytes. */
#define TP_FLASH_WRITE_UNIT_MAX 32u

/* Memory of `sectors` equal sectors; offsets count bytes from its start. Every function gives TP_OK or, where the
 * hardware reports a fault, TP_ERR_FLASH; none is called with a range outside the memory. */
typedef struct {
  void *context;
  tp_status (*read)(void *context, uint32_t offset, void *data, uint32_t length);
  /* Program erased bytes: `offset` and `length` are multiples of write_unit, `data` is aligned to nothing, and no unit
   * is programmed twice between two erasures. Returns when the bytes can be read. A unit in which the power failed may
   * read as anything or as a fault; only where it reads as erased may it be programmed again. */
  tp_status (*prog)(void *context, uint32_t offset, const void *data, uint32_t length);
  /* Erase one sector: afterwards each of its bytes is `erased`. One in which the power failed is erased again before
   * anything is programmed there, however it reads. */
  tp_status (*erase)(void *context, uint32_t sector);
  uint32_t sector_bytes; /* what is erased at once: a multiple of write_unit and of 64 */
  uint32_t sectors;
  uint32_t write_unit; /* what is programmed at once: 1, 2, 4, 8, 16 or 32 */
  uint8_t erased;      /* of each byte after erasing: 0xFF or 0x00 */
} tp_flash;

#endif
