/* A store on simulated flash for Python: everything in one object, whatever its size. */
#include <stdlib.h>
#include <string.h>

#include "sim_flash.h"
#include "tinypeft/tp_flash_file.h"
#include "tinypeft/tp_flash_memory.h"
#include "tinypeft/tp_store.h"

typedef struct {
  tp_store store;
  sim_flash sim;
  tp_flash_memory memory;
  tp_flash_file file;
} device;

device *device_new(uint32_t sector_bytes, uint32_t sectors, uint32_t write_unit, uint32_t erased);
void device_free(device *it);
tp_store *device_store(device *it);
tp_flash *device_flash(device *it);
int device_mount(device *it, const tp_flash *flash, uint32_t log_sectors, uint32_t slot_bytes, uint32_t test_boots,
                 int *reverted);
uint32_t device_erases(const device *it, uint32_t sector);
void device_fails(device *it, int fails);
void device_bad(device *it, uint32_t bad);
const char *device_violation(const device *it);
void device_fault(device *it, uint32_t offset, int fault);
tp_flash *device_memory(device *it, uint8_t *bytes, uint32_t sector_bytes, uint32_t sectors, uint32_t write_unit,
                        uint32_t erased);
int device_open(device *it, const char *path, uint32_t sector_bytes, uint32_t sectors, uint32_t write_unit,
                uint32_t erased);
void device_close(device *it);
tp_flash *device_file(device *it);

device *device_new(uint32_t sector_bytes, uint32_t sectors, uint32_t write_unit, uint32_t erased) {
  device *it = calloc(1, sizeof *it);
  if (it != NULL) {
    sim_init(&it->sim, sector_bytes, sectors, write_unit, (uint8_t)erased);
  }
  return it;
}

void device_free(device *it) { free(it); }

tp_store *device_store(device *it) { return &it->store; }

tp_flash *device_flash(device *it) { return &it->sim.flash; }

int device_mount(device *it, const tp_flash *flash, uint32_t log_sectors, uint32_t slot_bytes, uint32_t test_boots,
                 int *reverted) {
  const tp_store_config config = {flash, log_sectors, slot_bytes, test_boots};
  return tp_store_mount(&it->store, &config, reverted);
}

uint32_t device_erases(const device *it, uint32_t sector) { return it->sim.content.erases[sector]; }

void device_fails(device *it, int fails) { it->sim.fails = fails; }

void device_bad(device *it, uint32_t bad) { it->sim.bad = bad; }

const char *device_violation(const device *it) { return it->sim.violation == NULL ? "" : it->sim.violation; }

void device_fault(device *it, uint32_t offset, int fault) { it->sim.content.unit[offset] = fault ? 2 : 1; }

tp_flash *device_memory(device *it, uint8_t *bytes, uint32_t sector_bytes, uint32_t sectors, uint32_t write_unit,
                        uint32_t erased) {
  tp_flash_memory_init(&it->memory, bytes, sector_bytes, sectors, write_unit, (uint8_t)erased);
  return &it->memory.flash;
}

int device_open(device *it, const char *path, uint32_t sector_bytes, uint32_t sectors, uint32_t write_unit,
                uint32_t erased) {
  return tp_flash_file_open(&it->file, path, sector_bytes, sectors, write_unit, (uint8_t)erased);
}

void device_close(device *it) { tp_flash_file_close(&it->file); }

tp_flash *device_file(device *it) { return &it->file.flash; }
