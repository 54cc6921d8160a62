/* The storage of the host twin: memory, erased when the twin is loaded, or a file that tp_twin_storage() names. */
#include <string.h>

#include "tinypeft/tp_board.h"
#include "tinypeft/tp_flash_file.h"
#include "tinypeft/tp_flash_memory.h"
#include "tinypeft/tp_twin.h"

static uint8_t bytes[TP_STORAGE_SECTORS * TP_STORAGE_SECTOR_BYTES];
static tp_flash_memory memory;
static tp_flash_file file;
static const tp_flash *chosen; /* NULL: nothing has been asked of it */

tp_status tp_twin_storage(const char *path) {
  tp_flash_file_close(&file);
  chosen = NULL;
  if (path == NULL) {
    return TP_OK;
  }
  const tp_status status = tp_flash_file_open(&file, path, TP_STORAGE_SECTOR_BYTES, TP_STORAGE_SECTORS,
                                              TP_STORAGE_WRITE_UNIT, TP_STORAGE_ERASED);
  if (status == TP_OK) {
    chosen = &file.flash;
  }
  return status;
}

const tp_flash *tp_board_flash(void) {
  if (chosen == NULL) {
    memset(bytes, TP_STORAGE_ERASED, sizeof bytes);
    tp_flash_memory_init(&memory, bytes, TP_STORAGE_SECTOR_BYTES, TP_STORAGE_SECTORS, TP_STORAGE_WRITE_UNIT,
                         TP_STORAGE_ERASED);
    chosen = &memory.flash;
  }
  return chosen;
}
