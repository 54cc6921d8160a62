#include "tinypeft/tp_flash_memory.h"

#include <string.h>

static int inside(const tp_flash *flash, uint32_t offset, uint32_t length) {
  const uint32_t bytes = flash->sector_bytes * flash->sectors;
  return offset <= bytes && length <= bytes - offset;
}

static tp_status read(void *context, uint32_t offset, void *data, uint32_t length) {
  const tp_flash_memory *memory = context;
  if (!inside(&memory->flash, offset, length)) {
    return TP_ERR_FLASH;
  }
  memcpy(data, memory->bytes + offset, length);
  return TP_OK;
}

static tp_status prog(void *context, uint32_t offset, const void *data, uint32_t length) {
  tp_flash_memory *memory = context;
  const uint32_t unit = memory->flash.write_unit;
  if (!inside(&memory->flash, offset, length) || offset % unit != 0 || length % unit != 0) {
    return TP_ERR_FLASH;
  }
  for (uint32_t i = 0; i < length; i++) {
    if (memory->bytes[offset + i] != memory->flash.erased) {
      return TP_ERR_FLASH;
    }
  }
  memcpy(memory->bytes + offset, data, length);
  return TP_OK;
}

static tp_status erase(void *context, uint32_t sector) {
  tp_flash_memory *memory = context;
  if (sector >= memory->flash.sectors) {
    return TP_ERR_FLASH;
  }
  memset(memory->bytes + sector * memory->flash.sector_bytes, memory->flash.erased, memory->flash.sector_bytes);
  return TP_OK;
}

void tp_flash_memory_init(tp_flash_memory *memory, uint8_t *bytes, uint32_t sector_bytes, uint32_t sectors,
                          uint32_t write_unit, uint8_t erased) {
  memory->bytes = bytes;
  memory->flash = (tp_flash){
      .context = memory,
      .read = read,
      .prog = prog,
      .erase = erase,
      .sector_bytes = sector_bytes,
      .sectors = sectors,
      .write_unit = write_unit,
      .erased = erased,
  };
}
