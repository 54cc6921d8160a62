/* Flash of nRF52840 (nRF52840 Product Specification, NVMC): pages of 4 KB, programmed by words, each at most twice
 * between two erasures, here once. The core waits where it runs from the same flash. Has run against a model of the
 * registers, not on silicon yet. */
#include <string.h>

#include "tinypeft/tp_board.h"
#include "tinypeft/tp_register.h"
#include "tp_board_config.h"

#define NVMC_READY (TP_STORAGE_BASE + 0x400u)
#define NVMC_CONFIG (TP_STORAGE_BASE + 0x504u)
#define NVMC_ERASEPAGE (TP_STORAGE_BASE + 0x508u)

#define READY 1u
#define CONFIG_READ 0u
#define CONFIG_WRITE 1u
#define CONFIG_ERASE 2u

#define PAGE 0x1000u
#define WORD 4u

_Static_assert(TP_STORAGE_SECTOR_BYTES == PAGE && TP_STORAGE_ADDRESS % PAGE == 0, "a page is erased at once");
_Static_assert(TP_STORAGE_WRITE_UNIT % WORD == 0 && TP_STORAGE_ERASED == 0xFFu, "words are programmed, 0xFF is erased");

static void wait_until_ready(void) {
  while ((tp_register_read(NVMC_READY) & READY) == 0) {
  }
}

static void configure(uint32_t mode) {
  tp_register_write(NVMC_CONFIG, mode);
  tp_register_barrier();
  wait_until_ready();
}

/* Nothing is under way between two calls: what is not ready then is no NVMC, as in an emulator. */
static int missing(void) { return (tp_register_read(NVMC_READY) & READY) == 0; }

static tp_status read_bytes(void *context, uint32_t offset, void *data, uint32_t length) {
  (void)context;
  memcpy(data, tp_memory_at(TP_STORAGE_ADDRESS + offset), length);
  return TP_OK;
}

static tp_status prog(void *context, uint32_t offset, const void *data, uint32_t length) {
  (void)context;
  if (offset % WORD != 0 || length % WORD != 0 || missing()) {
    return TP_ERR_FLASH;
  }
  tp_status status = TP_OK;
  configure(CONFIG_WRITE);
  for (uint32_t done = 0; status == TP_OK && done < length; done += WORD) {
    const uint32_t address = TP_STORAGE_ADDRESS + offset + done;
    uint32_t word;
    memcpy(&word, (const uint8_t *)data + done, sizeof word);
    /* Programming what is not erased clears further bits; the NVMC reports nothing, so the word is read back too. */
    if (tp_register_read(address) != 0xFFFFFFFFu) {
      status = TP_ERR_FLASH;
      break;
    }
    tp_register_write(address, word);
    tp_register_barrier();
    wait_until_ready();
    if (tp_register_read(address) != word) {
      status = TP_ERR_FLASH;
    }
  }
  configure(CONFIG_READ);
  return status;
}

static tp_status erase(void *context, uint32_t sector) {
  (void)context;
  if (missing()) {
    return TP_ERR_FLASH;
  }
  const uint32_t address = TP_STORAGE_ADDRESS + sector * TP_STORAGE_SECTOR_BYTES;
  configure(CONFIG_ERASE);
  tp_register_write(NVMC_ERASEPAGE, address);
  tp_register_barrier();
  wait_until_ready();
  configure(CONFIG_READ);
  for (uint32_t at = 0; at < TP_STORAGE_SECTOR_BYTES; at += WORD) {
    if (tp_register_read(address + at) != 0xFFFFFFFFu) {
      return TP_ERR_FLASH;
    }
  }
  return TP_OK;
}

const tp_flash *tp_board_flash(void) {
  static const tp_flash flash = {
      .read = read_bytes,
      .prog = prog,
      .erase = erase,
      .sector_bytes = TP_STORAGE_SECTOR_BYTES,
      .sectors = TP_STORAGE_SECTORS,
      .write_unit = TP_STORAGE_WRITE_UNIT,
      .erased = TP_STORAGE_ERASED,
  };
  return &flash;
}
