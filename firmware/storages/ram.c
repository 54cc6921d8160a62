/* RAM that stands for flash, on machines that have none to program: it outlasts a reset, not the loss of power. After
 * power-on it holds anything. */
#include "tinypeft/tp_board.h"
#include "tinypeft/tp_flash_memory.h"

/* Set by the linker script: TP_STORAGE_SECTORS * TP_STORAGE_SECTOR_BYTES bytes. */
extern uint8_t tp_storage_start[];

const tp_flash *tp_board_flash(void) {
  static tp_flash_memory memory;
  tp_flash_memory_init(&memory, tp_storage_start, TP_STORAGE_SECTOR_BYTES, TP_STORAGE_SECTORS, TP_STORAGE_WRITE_UNIT,
                       TP_STORAGE_ERASED);
  return &memory.flash;
}
