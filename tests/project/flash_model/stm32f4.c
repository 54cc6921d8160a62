/* The flash interface of STM32F4 as RM0090, section 3, has it: keys, lock, busy, sector erasure, caches. */
#include "model.h"

#include <string.h>

#include "tinypeft/tp_register.h"

enum { ACR = 0x00, KEYR = 0x04, SR = 0x0C, CR = 0x10 };

#define BSY (1u << 16)
#define PGSERR (1u << 7)
#define PGPERR (1u << 6)
#define OPERR (1u << 1)
#define LOCK (1u << 31)
#define STRT (1u << 16)
#define CACHES (3u << 9)
#define CACHE_RESETS (3u << 11)

static uint32_t acr = CACHES, sr, cr = LOCK;
static uint32_t busy; /* reads of SR until BSY falls */
static int keys;      /* accepted in turn; -1: a wrong one, locked until the next reset */
static int stale;     /* erased since the caches were reset */

void model_reset(void) {
  acr = CACHES;
  sr = 0;
  cr = LOCK;
  busy = 0;
  keys = 0;
  stale = 0;
  memset(&model_seen, 0, sizeof model_seen);
}

int model_at_rest(void) {
  return (cr & LOCK) != 0 && (cr & 0x1FFu) == 0 && busy == 0 && !stale && (acr & CACHES) == CACHES;
}

static void check_idle(const char *what) {
  if (busy > 0) {
    model_violation(what);
  }
}

static void write_control(uint32_t value) {
  check_idle("CR is written while BSY is set");
  if ((cr & LOCK) != 0) {
    model_violation("CR is written while it is locked");
    return;
  }
  if ((value & LOCK) != 0) {
    cr = LOCK;
    keys = 0;
    return;
  }
  cr = value & ~STRT;
  if ((value & STRT) == 0) {
    return;
  }
  const uint32_t sector = (value >> 3) & 0xFu;
  if ((value & 7u) != 2u || ((value >> 8) & 3u) != 2u) {
    model_violation("STRT without SER alone and PSIZE x32");
  } else if (sector < TP_STORAGE_FIRST_SECTOR || sector >= TP_STORAGE_FIRST_SECTOR + TP_STORAGE_SECTORS) {
    model_violation("a sector outside the storage is erased");
  } else {
    memset(&model_memory[(sector - TP_STORAGE_FIRST_SECTOR) * TP_STORAGE_SECTOR_BYTES], 0xFF, TP_STORAGE_SECTOR_BYTES);
    model_seen.erased++;
    busy = model_busy;
    stale = 1;
  }
}

static void write_caches(uint32_t value) {
  if ((value & CACHE_RESETS) != 0 && (value & CACHES) != 0) {
    model_violation("a cache is reset while it is on");
  }
  if ((value & CACHE_RESETS) == CACHE_RESETS) {
    model_seen.cache_resets++;
    stale = 0;
  }
  if ((value & CACHES) != 0 && stale) {
    model_violation("a cache is turned on with stale content");
  }
  acr = value;
}

static void program(uint32_t address, uint32_t value) {
  uint8_t *at = model_word(address);
  uint32_t word;
  memcpy(&word, at, sizeof word);
  check_idle("a word is programmed while BSY is set");
  if ((cr & LOCK) != 0 || (cr & 1u) == 0) {
    sr |= PGSERR;
    model_violation("a word is programmed without PG");
    return;
  }
  if (((cr >> 8) & 3u) != 2u) {
    sr |= PGPERR;
    model_violation("a word is programmed with another PSIZE");
    return;
  }
  if (word != 0xFFFFFFFFu) {
    model_violation("a word is programmed that is not erased");
  }
  busy = model_busy;
  if (address == model_fails_at) {
    sr |= OPERR;
    return;
  }
  word &= value;
  memcpy(at, &word, sizeof word);
  model_seen.programmed++;
}

uint32_t tp_register_read(uint32_t address) {
  uint32_t word;
  if (address < TP_STORAGE_BASE || address > TP_STORAGE_BASE + 0xFFu) {
    check_idle("the flash is read while BSY is set");
    memcpy(&word, model_word(address), sizeof word);
    return word;
  }
  if (model_absent) {
    return 0;
  }
  switch (address - TP_STORAGE_BASE) {
    case ACR:
      return acr;
    case SR:
      model_seen.polls++;
      if (busy > 0) {
        busy--;
        return sr | BSY;
      }
      return sr;
    case CR:
      return cr;
    default:
      model_violation("another register is read");
      return 0;
  }
}

void tp_register_write(uint32_t address, uint32_t value) {
  if (address < TP_STORAGE_BASE || address > TP_STORAGE_BASE + 0xFFu) {
    program(address, value);
    return;
  }
  if (model_absent) {
    return;
  }
  switch (address - TP_STORAGE_BASE) {
    case ACR:
      write_caches(value);
      break;
    case KEYR:
      if ((cr & LOCK) == 0 || keys < 0 || value != (keys == 0 ? 0x45670123u : 0xCDEF89ABu)) {
        model_violation("a wrong key");
        keys = -1;
      } else if (++keys == 2) {
        cr &= ~LOCK;
      }
      break;
    case SR:
      sr &= ~value;
      break;
    case CR:
      write_control(value);
      break;
    default:
      model_violation("another register is written");
  }
}
