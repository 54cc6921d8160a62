/* Mounts memory that holds anything: noise, and what a store left with bytes changed, half of them under a valid
 * checksum. It must mount, name no slot twice and none outside, program nothing that is not erased, and take an update. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scenarios.h"
#include "tinypeft/tp_crc.h"
#include "tinypeft/tp_flash_memory.h"
#include "tp_store_log.h"

#define SECTOR 1024u

static uint32_t state = 1;

static uint32_t below(uint32_t limit) {
  state ^= state << 13;
  state ^= state >> 17;
  state ^= state << 5;
  return state % limit;
}

static tp_status (*strict_prog)(void *context, uint32_t offset, const void *data, uint32_t length);

static tp_status prog(void *context, uint32_t offset, const void *data, uint32_t length) {
  const tp_status status = strict_prog(context, offset, data, length);
  if (status != TP_OK) {
    printf("programmed what is not erased, at %u\n", offset);
    exit(1);
  }
  return status;
}

static void expect(int holds, const char *what, long round) {
  if (!holds) {
    printf("round %ld: %s\n", round, what);
    exit(1);
  }
}

static void check_entries(const tp_store *store, long round) {
  static uint8_t named[0x10000];
  static uint8_t object[4096];
  memset(named, 0, sizeof named);
  uint32_t unused = 0;
  const uint32_t slots = tp_store_slots(store, &unused);
  for (uint32_t i = 0; i < tp_store_count(store); i++) {
    const tp_store_entry *entry = tp_store_entry_at(store, i);
    expect(tp_id_valid(entry->id) && tp_store_find(store, entry->id) == entry, "an id", round);
    for (uint32_t part = 0; part < TP_STORE_PARTS; part++) {
      const uint32_t slot = entry->slot[part];
      if (slot != TP_STORE_NO_SLOT) {
        expect(slot < slots && !named[slot], "a slot named twice or outside", round);
        named[slot] = 1;
        expect(tp_store_read(store, entry, (tp_store_part)part, 0, object, entry->bytes[part]) == TP_OK, "a part", round);
      }
    }
  }
}

static void mutate(uint8_t *bytes, uint32_t log_bytes) {
  for (uint32_t changes = 1u + below(4); changes > 0; changes--) {
    uint8_t *cell = bytes + below(log_bytes / TP_STORE_CELL_BYTES) * TP_STORE_CELL_BYTES;
    const uint32_t at = below(4) == 0 ? below(TP_STORE_CELL_BYTES) : 8u + below(52);
    const uint8_t values[] = {0, 1, 0x7F, 0x80, 0xFE, 0xFF, (uint8_t)below(256), (uint8_t)below(8)};
    if (below(8) == 0) {
      memcpy(cell, bytes + below(log_bytes / TP_STORE_CELL_BYTES) * TP_STORE_CELL_BYTES, TP_STORE_CELL_BYTES);
    } else {
      cell[at] = values[below(sizeof values)];
    }
    if (below(2) == 0) {
      const uint32_t crc = tp_crc32(0, cell, 60);
      for (uint32_t i = 0; i < 4; i++) {
        cell[60u + i] = (uint8_t)(crc >> (8u * i));
      }
    }
  }
}

/* Some steps of a scenario on an erased memory. */
static void fill(tp_store *store, const tp_store_config *config, uint32_t steps) {
  const scenario *run = &SCENARIOS[below(SCENARIOS_COUNT)];
  for (uint32_t i = 0; i < run->count && i <= steps; i++) {
    step next = run->steps[i];
    next.bytes = next.bytes == FULL ? config->slot_bytes : next.bytes;
    (void)store_step(store, config, &next);
  }
}

int main(int argc, char **argv) {
  static const uint32_t units[] = {1, 4, 8, 32}, slots[] = {256, 1000, 1500, 1024, 511, 64};
  const long rounds = argc > 1 ? strtol(argv[1], NULL, 10) : 1000;
  long mounted = 0, other = 0, entries = 0;
  for (long round = 0; round < rounds; round++) {
    const uint32_t slot = slots[below(6)], log = 2u + below(3);
    const uint32_t sectors = log + 3u + (slot > SECTOR ? 9u : 3u) + below(4);
    uint8_t *bytes = malloc(sectors * SECTOR);
    tp_flash_memory memory;
    tp_store store;
    tp_flash_memory_init(&memory, bytes, SECTOR, sectors, units[below(4)], below(2) == 0 ? 0xFF : 0x00);
    const tp_store_config config = {&memory.flash, log, slot, 1u + below(3)};
    strict_prog = memory.flash.prog;
    memory.flash.prog = prog;
    memset(bytes, memory.flash.erased, sectors * SECTOR);
    if (below(8) == 0) {
      for (uint32_t i = 0; i < sectors * SECTOR; i++) {
        bytes[i] = (uint8_t)below(256);
      }
    } else {
      fill(&store, &config, below(32));
    }
    mutate(bytes, log * SECTOR);
    memset(&store, 0xAA, sizeof store);
    tp_status status = tp_store_mount(&store, &config, NULL);
    if (status == TP_ERR_GEOMETRY) {
      other++;
      status = tp_store_format(&store);
    }
    expect(status == TP_OK, "it does not mount", round);
    mounted++;
    entries += (long)tp_store_count(&store);
    check_entries(&store, round);
    for (uint32_t i = 1; i < RECOVERY_STEPS; i++) {
      step next = RECOVERY[i];
      next.bytes = next.bytes > slot ? slot : next.bytes;
      status = store_step(&store, &config, &next);
      expect(status == TP_OK || (i == 1 && status == TP_ERR_FULL) || status == TP_ERR_ROLLBACK, "no update", round);
      i = status == TP_OK ? i : RECOVERY_STEPS;
      check_entries(&store, round);
    }
    expect(tp_store_collect(&store) == TP_OK, "no collection", round);
    check_entries(&store, round);
    free(bytes);
  }
  printf("%ld mounted with %ld entries, %ld of another geometry\n", mounted, entries, other);
  return 0;
}
