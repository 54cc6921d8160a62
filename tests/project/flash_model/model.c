/* The flash of the model, and the calls that the test makes. */
#include "model.h"

#include <string.h>

#include "tinypeft/tp_board.h"
#include "tinypeft/tp_register.h"

model_counts model_seen;
uint8_t model_memory[MODEL_BYTES];
int model_absent;
uint32_t model_fails_at;
uint32_t model_busy = 3;

void model_violation(const char *what) {
  if (model_seen.violations++ == 0) {
    strncpy(model_seen.first, what, sizeof model_seen.first - 1);
  }
}

uint8_t *model_word(uint32_t address) {
  static uint8_t elsewhere[4];
  if (address % 4 != 0 || address < TP_STORAGE_ADDRESS || address - TP_STORAGE_ADDRESS > MODEL_BYTES - 4u) {
    model_violation("an address outside the storage, or not of a word");
    return elsewhere;
  }
  return &model_memory[address - TP_STORAGE_ADDRESS];
}

const void *tp_memory_at(uint32_t address) { return &model_memory[address - TP_STORAGE_ADDRESS]; }

int storage_read(uint32_t offset, void *data, uint32_t length);
int storage_prog(uint32_t offset, const void *data, uint32_t length);
int storage_erase(uint32_t sector);
uint32_t storage_geometry(int which);

int storage_read(uint32_t offset, void *data, uint32_t length) {
  const tp_flash *flash = tp_board_flash();
  return flash->read(flash->context, offset, data, length);
}

int storage_prog(uint32_t offset, const void *data, uint32_t length) {
  const tp_flash *flash = tp_board_flash();
  return flash->prog(flash->context, offset, data, length);
}

int storage_erase(uint32_t sector) {
  const tp_flash *flash = tp_board_flash();
  return flash->erase(flash->context, sector);
}

uint32_t storage_geometry(int which) {
  const tp_flash *flash = tp_board_flash();
  const uint32_t numbers[] = {flash->sector_bytes, flash->sectors, flash->write_unit, flash->erased};
  return numbers[which];
}
