/* Flash of STM32F405, F407 and F446 (RM0090, section 3; RM0390, section 3): sectors of 128 KB, programmed by words,
 * which takes a supply of 2.7 to 3.6 V. The core waits where it runs from the same flash. Has run against a model of the
 * registers, not on silicon yet. */
#include <string.h>

#include "tinypeft/tp_board.h"
#include "tinypeft/tp_register.h"
#include "tp_board_config.h"

#define FLASH_ACR (TP_STORAGE_BASE + 0x00u)
#define FLASH_KEYR (TP_STORAGE_BASE + 0x04u)
#define FLASH_SR (TP_STORAGE_BASE + 0x0Cu)
#define FLASH_CR (TP_STORAGE_BASE + 0x10u)

#define ACR_ICEN (1u << 9)
#define ACR_DCEN (1u << 10)
#define ACR_ICRST (1u << 11)
#define ACR_DCRST (1u << 12)
#define KEY1 0x45670123u
#define KEY2 0xCDEF89ABu
#define SR_EOP (1u << 0)
#define SR_ERRORS 0x1F2u /* OPERR, WRPERR, PGAERR, PGPERR, PGSERR, and RDERR of F446 */
#define SR_BSY (1u << 16)
#define CR_PG (1u << 0)
#define CR_SER (1u << 1)
#define CR_SNB(sector) ((sector) << 3)
#define CR_PSIZE_X32 (2u << 8)
#define CR_STRT (1u << 16)
#define CR_LOCK (1u << 31)

#define MAIN_MEMORY 0x08000000u
#define WORD 4u

_Static_assert(TP_STORAGE_SECTOR_BYTES == 0x20000u && TP_STORAGE_FIRST_SECTOR >= 5u,
               "sectors 5 and above have 128 KB, those below less");
_Static_assert(TP_STORAGE_ADDRESS == MAIN_MEMORY + (TP_STORAGE_FIRST_SECTOR - 4u) * TP_STORAGE_SECTOR_BYTES,
               "the storage does not begin where its first sector does");
_Static_assert(TP_STORAGE_FIRST_SECTOR + TP_STORAGE_SECTORS <= 12u, "there are sectors 0 to 11");
_Static_assert(TP_STORAGE_WRITE_UNIT % WORD == 0 && TP_STORAGE_ERASED == 0xFFu, "words are programmed, 0xFF is erased");

static void wait_until_ready(void) {
  while ((tp_register_read(FLASH_SR) & SR_BSY) != 0) {
  }
}

static void lock(void) { tp_register_write(FLASH_CR, CR_LOCK); }

/* Ready for one operation, whatever was left behind; TP_ERR_FLASH where there is no such controller, as in an emulator,
 * or where it refuses its keys. */
static tp_status unlock(void) {
  wait_until_ready();
  if ((tp_register_read(FLASH_CR) & CR_LOCK) == 0) {
    lock();
    if ((tp_register_read(FLASH_CR) & CR_LOCK) == 0) {
      return TP_ERR_FLASH;
    }
  }
  tp_register_write(FLASH_KEYR, KEY1);
  tp_register_write(FLASH_KEYR, KEY2);
  if ((tp_register_read(FLASH_CR) & CR_LOCK) != 0) {
    return TP_ERR_FLASH;
  }
  tp_register_write(FLASH_SR, SR_EOP | SR_ERRORS); /* cleared by writing ones */
  return TP_OK;
}

/* Wait for the operation, and tell what the controller says of it. */
static tp_status finish(void) {
  wait_until_ready();
  return (tp_register_read(FLASH_SR) & SR_ERRORS) == 0 ? TP_OK : TP_ERR_FLASH;
}

/* What an erasure leaves in the caches is stale; they may be reset only while they are off. */
static void reset_caches(void) {
  const uint32_t before = tp_register_read(FLASH_ACR);
  const uint32_t off = before & ~(ACR_ICEN | ACR_DCEN | ACR_ICRST | ACR_DCRST);
  tp_register_write(FLASH_ACR, off);
  tp_register_write(FLASH_ACR, off | ACR_ICRST | ACR_DCRST);
  tp_register_write(FLASH_ACR, off);
  tp_register_write(FLASH_ACR, off | (before & (ACR_ICEN | ACR_DCEN)));
}

static tp_status read_bytes(void *context, uint32_t offset, void *data, uint32_t length) {
  (void)context;
  memcpy(data, tp_memory_at(TP_STORAGE_ADDRESS + offset), length);
  return TP_OK;
}

static tp_status prog(void *context, uint32_t offset, const void *data, uint32_t length) {
  (void)context;
  if (offset % WORD != 0 || length % WORD != 0) {
    return TP_ERR_FLASH;
  }
  tp_status status = unlock();
  if (status != TP_OK) {
    return status;
  }
  tp_register_write(FLASH_CR, CR_PSIZE_X32 | CR_PG);
  for (uint32_t done = 0; status == TP_OK && done < length; done += WORD) {
    const uint32_t address = TP_STORAGE_ADDRESS + offset + done;
    uint32_t word;
    memcpy(&word, (const uint8_t *)data + done, sizeof word);
    /* Programming what is not erased clears further bits, and the controller says nothing. */
    if (tp_register_read(address) != 0xFFFFFFFFu) {
      status = TP_ERR_FLASH;
      break;
    }
    tp_register_write(address, word);
    tp_register_barrier();
    status = finish();
    if (status == TP_OK && tp_register_read(address) != word) {
      status = TP_ERR_FLASH;
    }
  }
  lock();
  return status;
}

static tp_status erase(void *context, uint32_t sector) {
  (void)context;
  tp_status status = unlock();
  if (status != TP_OK) {
    return status;
  }
  const uint32_t control = CR_PSIZE_X32 | CR_SER | CR_SNB(TP_STORAGE_FIRST_SECTOR + sector);
  tp_register_write(FLASH_CR, control);
  tp_register_write(FLASH_CR, control | CR_STRT);
  tp_register_barrier();
  status = finish();
  lock();
  reset_caches();
  return status;
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
