/* Flash in a file, on a host. */
#ifndef TP_FLASH_FILE_H
#define TP_FLASH_FILE_H

#include <stdio.h>

#include "tp_flash.h"

typedef struct {
  tp_flash flash; /* pass &file.flash on */
  FILE *file;
} tp_flash_file;

/* Flash in the file at `path`, which is made where it is missing and filled with erased bytes where it is empty;
 * `file` must not move afterwards. Every operation has reached the operating system when it returns. As strict as
 * hardware: TP_ERR_FLASH for a range outside, one that is not whole units, or a unit that is not erased. Errors:
 * TP_ERR_SIZE for a file of another size, TP_ERR_FLASH where it cannot be opened or written; then it is closed. */
tp_status tp_flash_file_open(tp_flash_file *file, const char *path, uint32_t sector_bytes, uint32_t sectors,
                             uint32_t write_unit, uint8_t erased);

void tp_flash_file_close(tp_flash_file *file);

#endif
