/* The NVMC of nRF52840 as its Product Specification has it: modes, ready, page erasure, two writes a word. */
#include "model.h"

#include <string.h>

#include "tinypeft/tp_register.h"

enum { READY = 0x400, CONFIG = 0x504, ERASEPAGE = 0x508, PAGE = 0x1000 };
enum { READ = 0, WRITE = 1, ERASE = 2 };

static uint32_t config;
static uint32_t busy; /* reads of READY until it is 1 */

void model_reset(void) {
  config = READ;
  busy = 0;
  memset(&model_seen, 0, sizeof model_seen);
}

int model_at_rest(void) { return config == READ && busy == 0; }

static void check_idle(const char *what) {
  if (busy > 0) {
    model_violation(what);
  }
}

static void program(uint32_t address, uint32_t value) {
  uint8_t *at = model_word(address);
  uint32_t word;
  memcpy(&word, at, sizeof word);
  check_idle("a word is programmed before the NVMC is ready");
  if (config != WRITE) {
    model_violation("a word is programmed without CONFIG being Wen");
    return;
  }
  if (word != 0xFFFFFFFFu) {
    model_violation("a word is programmed that is not erased");
  }
  busy = model_busy;
  if (address == model_fails_at) {
    value |= 1u << 7;
  }
  word &= value;
  memcpy(at, &word, sizeof word);
  model_seen.programmed++;
}

static void erase_page(uint32_t address) {
  check_idle("a page is erased before the NVMC is ready");
  if (config != ERASE || address % PAGE != 0) {
    model_violation("a page is erased without CONFIG being Een, or is none");
    return;
  }
  memset(model_word(address), 0xFF, PAGE);
  if (address == model_fails_at) {
    model_word(address)[5] = 0;
  }
  model_seen.erased++;
  busy = model_busy;
}

uint32_t tp_register_read(uint32_t address) {
  uint32_t word;
  if (address < TP_STORAGE_BASE || address > TP_STORAGE_BASE + 0xFFFu) {
    memcpy(&word, model_word(address), sizeof word);
    check_idle("the flash is read before the NVMC is ready");
    return word;
  }
  if (model_absent) {
    return 0;
  }
  if (address - TP_STORAGE_BASE != READY) {
    model_violation("another register is read");
    return 0;
  }
  model_seen.polls++;
  if (busy > 0) {
    busy--;
    return 0;
  }
  return 1;
}

void tp_register_write(uint32_t address, uint32_t value) {
  if (address < TP_STORAGE_BASE || address > TP_STORAGE_BASE + 0xFFFu) {
    program(address, value);
    return;
  }
  if (model_absent) {
    return;
  }
  switch (address - TP_STORAGE_BASE) {
    case CONFIG:
      check_idle("CONFIG is written before the NVMC is ready");
      config = value;
      break;
    case ERASEPAGE:
      erase_page(value);
      break;
    default:
      model_violation("another register is written");
  }
}
