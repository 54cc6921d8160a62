/* The log: cells are made and read here, and nowhere else. What a cell says is applied by one function, whether it was
 * just written or is read by a mount. */
#include <string.h>

#include "tinypeft/tp_bytes.h"
#include "tinypeft/tp_crc.h"
#include "tp_store_log.h"

#define FORMAT_VERSION 1u
#define CRC_AT (TP_STORE_CELL_BYTES - 4u)
#define ENTRY_AT 8u
#define FLAGS_AT (ENTRY_AT + offsetof(tp_store_entry, on_test))
#define MAP_AT 12u
#define GEOMETRY_AT 12u
#define GEOMETRY_BYTES 19u
#define ADAPTERS_AT (GEOMETRY_AT + GEOMETRY_BYTES)
#define ON_TEST 1u
#define ACTIVE 2u
#define NONE 0xFFFFFFFFu

enum { HEADER = 'H', STATE = 'S', MAP = 'M', SEAL = 'E' };
/* of read_cell(), where it is no kind */
enum { TORN = 0, ERASED = 1, UNREADABLE = 2 };

_Static_assert(MAP_AT + TP_STORE_BLOCKS <= CRC_AT, "TP_STORE_BLOCKS is above what a cell holds");
/* The bytes of an S cell are those of an entry. */
_Static_assert(sizeof(tp_store_entry) == 52u && offsetof(tp_store_entry, slot) == 16u &&
                   offsetof(tp_store_entry, on_test) == 22u && offsetof(tp_store_entry, boots) == 23u &&
                   offsetof(tp_store_entry, bytes) == 24u && offsetof(tp_store_entry, version) == 36u &&
                   offsetof(tp_store_entry, counter) == 48u,
               "tp_store_entry is not laid out as STORAGE.md says");
_Static_assert(TP_STORE_ADAPTERS >= 1 && TP_STORE_ADAPTERS <= 255, "TP_STORE_ADAPTERS is out of range");

static uint32_t cells(const tp_store *store) { return store->config.flash->sector_bytes / TP_STORE_CELL_BYTES; }

static uint32_t cell_offset(const tp_store *store, uint32_t sector, uint32_t index) {
  return sector * store->config.flash->sector_bytes + index * TP_STORE_CELL_BYTES;
}

/* The kind of a valid cell, else why it is none. */
static uint8_t read_cell(const tp_store *store, uint32_t sector, uint32_t index, uint8_t *cell) {
  const tp_flash *flash = store->config.flash;
  if (flash->read(flash->context, cell_offset(store, sector, index), cell, TP_STORE_CELL_BYTES) != TP_OK) {
    return UNREADABLE;
  }
  if (tp_get_u32(cell + CRC_AT) == tp_crc32(0, cell, CRC_AT)) {
    return cell[0] > UNREADABLE ? cell[0] : (uint8_t)TORN;
  }
  for (uint32_t i = 0; i < TP_STORE_CELL_BYTES; i++) {
    if (cell[i] != flash->erased) {
      return TORN;
    }
  }
  return ERASED;
}

/* What reads back counts, whatever programming gave. */
static tp_status write_cell(const tp_store *store, uint32_t sector, uint32_t index, uint32_t sequence, uint8_t *cell) {
  const tp_flash *flash = store->config.flash;
  const uint32_t offset = cell_offset(store, sector, index);
  uint8_t back[TP_STORE_CELL_BYTES];
  tp_put_u32(cell + 4, sequence);
  tp_put_u32(cell + CRC_AT, tp_crc32(0, cell, CRC_AT));
  (void)flash->prog(flash->context, offset, cell, TP_STORE_CELL_BYTES);
  const tp_status status = flash->read(flash->context, offset, back, TP_STORE_CELL_BYTES);
  return status == TP_OK && memcmp(cell, back, TP_STORE_CELL_BYTES) == 0 ? TP_OK : TP_ERR_FLASH;
}

static void begin_cell(uint8_t *cell, int kind) {
  memset(cell, 0, TP_STORE_CELL_BYTES);
  cell[0] = (uint8_t)kind;
}

static void header_cell(const tp_store *store, uint8_t *cell) {
  const tp_flash *flash = store->config.flash;
  begin_cell(cell, HEADER);
  memcpy(cell + 8, "TPST", 4);
  uint8_t *geometry = cell + GEOMETRY_AT;
  tp_put_u32(geometry, flash->sector_bytes);
  tp_put_u32(geometry + 4, flash->sectors);
  tp_put_u32(geometry + 8, store->config.log_sectors);
  tp_put_u32(geometry + 12, store->slot_stride);
  geometry[16] = (uint8_t)flash->write_unit;
  geometry[17] = flash->erased;
  geometry[18] = FORMAT_VERSION;
  cell[ADAPTERS_AT] = TP_STORE_ADAPTERS;
}

static void entry_cell(const tp_store_entry *entry, int active, uint8_t *cell) {
  begin_cell(cell, STATE);
  memcpy(cell + ENTRY_AT, entry, sizeof *entry);
  cell[FLAGS_AT] = (uint8_t)((entry->on_test ? ON_TEST : 0u) | (active ? ACTIVE : 0u));
}

static uint32_t map_entries(const tp_store *store) { return store->blocks + (store->block_slots > 1u ? 1u : 0u); }

static void map_cell(const tp_store *store, uint8_t *cell) {
  begin_cell(cell, MAP);
  tp_put_u32(cell + 8, store->next_slot);
  memcpy(cell + MAP_AT, store->map, map_entries(store));
}

/* Whether the entry of a cell can be so, beside the others but the one at `index`. */
static int entry_valid(const tp_store *store, const tp_store_entry *entry, uint32_t index, uint32_t flags) {
  if (!tp_id_valid(entry->id) || flags > (ON_TEST | ACTIVE) ||
      (entry->on_test != 0 && entry->slot[TP_STORE_CANDIDATE] == TP_STORE_NO_SLOT)) {
    return 0;
  }
  for (uint32_t part = 0; part < TP_STORE_PARTS; part++) {
    const uint32_t slot = entry->slot[part];
    if (slot == TP_STORE_NO_SLOT) {
      continue;
    }
    if (slot >= tp_store_slot_count(store) || entry->bytes[part] == 0 ||
        entry->bytes[part] > store->config.slot_bytes || tp_store_part_in(entry, slot) != part) {
      return 0;
    }
    for (uint32_t i = 0; i < store->count; i++) {
      if (i != index && tp_store_part_in(&store->entries[i], slot) != TP_STORE_PARTS) {
        return 0;
      }
    }
  }
  return 1;
}

static void forget(tp_store *store, uint32_t index) {
  if (index < store->count) {
    store->count--;
    memmove(&store->entries[index], &store->entries[index + 1u], (store->count - index) * sizeof store->entries[0]);
    if (store->active > index && store->active != TP_STORE_NO_SLOT) {
      store->active--;
    }
  }
}

static void apply_entry(tp_store *store, const uint8_t *cell) {
  const uint32_t flags = cell[FLAGS_AT];
  tp_store_entry entry;
  memcpy(&entry, cell + ENTRY_AT, sizeof entry);
  entry.on_test = flags & ON_TEST;
  const uint32_t index = tp_store_index(store, entry.id);
  if (!entry_valid(store, &entry, index, flags) || index == TP_STORE_ADAPTERS) {
    return;
  }
  const int serves = tp_store_serving(&entry) != TP_STORE_PARTS;
  if ((flags & ACTIVE) != 0 && serves) {
    store->active = index;
  } else if (store->active == index) {
    store->active = TP_STORE_NO_SLOT;
  }
  if (!tp_store_has_slots(&entry) && entry.counter == 0) {
    forget(store, index);
    return;
  }
  for (uint32_t part = 0; part < TP_STORE_PARTS; part++) {
    if (entry.slot[part] != TP_STORE_NO_SLOT &&
        (index == store->count || tp_store_part_in(&store->entries[index], entry.slot[part]) == TP_STORE_PARTS)) {
      store->next_slot = entry.slot[part] + 1u;
    }
  }
  store->entries[index] = entry;
  store->count += index == store->count ? 1u : 0u;
}

static void apply_map(tp_store *store, const uint8_t *cell) {
  const uint8_t *map = cell + MAP_AT;
  const uint32_t entries = map_entries(store);
  for (uint32_t i = 0; i < entries; i++) {
    const uint32_t physical = map[i] & TP_STORE_PHYSICAL;
    if (physical >= entries || (store->block_slots == 1u && physical != i)) {
      return;
    }
    for (uint32_t j = 0; j < i; j++) {
      if ((map[j] & TP_STORE_PHYSICAL) == physical) {
        return;
      }
    }
  }
  memcpy(store->map, map, entries);
  store->next_slot = tp_get_u32(cell + 8) % tp_store_slot_count(store);
}

static void apply(tp_store *store, const uint8_t *cell) {
  if (cell[0] == STATE) {
    apply_entry(store, cell);
  } else if (cell[0] == MAP) {
    apply_map(store, cell);
  }
}

/* The sequence number of a sector whose snapshot is whole and sealed, else 0; `*unreadable` counts headers that are. */
static uint32_t sealed(const tp_store *store, uint32_t sector, uint32_t *unreadable) {
  uint8_t cell[TP_STORE_CELL_BYTES];
  uint8_t kind = read_cell(store, sector, 0, cell);
  *unreadable += kind == UNREADABLE ? 1u : 0u;
  if (kind != HEADER || memcmp(cell + 8, "TPST", 4) != 0) {
    return 0;
  }
  const uint32_t sequence = tp_get_u32(cell + 4);
  for (uint32_t i = 1; i < cells(store); i++) {
    kind = read_cell(store, sector, i, cell);
    if ((kind != STATE && kind != MAP && kind != SEAL) || tp_get_u32(cell + 4) != sequence) {
      return 0;
    }
    if (kind == SEAL) {
      return sequence;
    }
  }
  return 0;
}

/* Begin the next sector of the ring with all that counts. Where that fails, the next change tries again. */
static tp_status rotate(tp_store *store) {
  const tp_flash *flash = store->config.flash;
  const uint32_t sector = (store->log_sector + 1u) % store->config.log_sectors;
  const uint32_t sequence = store->log_sequence + 1u;
  const uint32_t map_at = store->count + 1u;
  store->log_cell = cells(store);
  if (store->log_sequence == UINT32_MAX) {
    return TP_ERR_FLASH; /* the number behind it would be older than all */
  }
  tp_status status = flash->erase(flash->context, sector);
  for (uint32_t i = 0; i <= map_at + 1u && status == TP_OK; i++) {
    uint8_t cell[TP_STORE_CELL_BYTES];
    if (i == 0) {
      header_cell(store, cell);
    } else if (i < map_at) {
      entry_cell(&store->entries[i - 1u], store->active == i - 1u, cell);
    } else if (i == map_at) {
      map_cell(store, cell);
    } else {
      begin_cell(cell, SEAL);
    }
    status = write_cell(store, sector, i, sequence, cell);
  }
  if (status == TP_OK) {
    store->log_sector = sector;
    store->log_sequence = sequence;
    store->log_cell = map_at + 2u;
  }
  return status;
}

static tp_status append(tp_store *store, uint8_t *cell) {
  if (!store->mounted) {
    return TP_ERR_STATE;
  }
  tp_status status = store->log_cell == cells(store) ? rotate(store) : TP_OK;
  if (status != TP_OK) {
    return status;
  }
  status = write_cell(store, store->log_sector, store->log_cell++, store->log_sequence, cell);
  apply(store, cell);
  if (status != TP_OK && rotate(store) != TP_OK) {
    /* What the memory holds is now unknown: nothing may be erased until it has been read again. */
    store->mounted = 0;
    tp_store_abort(store);
    return status;
  }
  return TP_OK;
}

tp_status tp_store_log_entry(tp_store *store, const tp_store_entry *entry, int active) {
  uint8_t cell[TP_STORE_CELL_BYTES];
  entry_cell(entry, active, cell);
  return append(store, cell);
}

tp_status tp_store_log_block(tp_store *store, uint32_t block, uint32_t physical) {
  uint8_t cell[TP_STORE_CELL_BYTES];
  map_cell(store, cell);
  if (store->block_slots > 1u) {
    cell[MAP_AT + store->blocks] = store->map[block] & TP_STORE_PHYSICAL;
  }
  cell[MAP_AT + block] = (uint8_t)physical;
  return append(store, cell);
}

static tp_status replay(tp_store *store) {
  uint8_t ours[TP_STORE_CELL_BYTES], cell[TP_STORE_CELL_BYTES];
  header_cell(store, ours);
  if (read_cell(store, store->log_sector, 0, cell) != HEADER) {
    return TP_ERR_FLASH;
  }
  if (memcmp(ours + GEOMETRY_AT, cell + GEOMETRY_AT, GEOMETRY_BYTES) != 0 || cell[ADAPTERS_AT] > TP_STORE_ADAPTERS) {
    return TP_ERR_GEOMETRY;
  }
  store->log_cell = 1;
  for (uint32_t i = 1; i < cells(store); i++) {
    const uint8_t kind = read_cell(store, store->log_sector, i, cell);
    if (kind != ERASED) {
      store->log_cell = i + 1u;
    }
    if (kind > UNREADABLE && tp_get_u32(cell + 4) == store->log_sequence) {
      apply(store, cell);
    }
  }
  return TP_OK;
}

tp_status tp_store_log_open(tp_store *store, int format) {
  uint32_t newest = NONE, unreadable = 0;
  store->mounted = 0;
  store->count = 0;
  store->active = TP_STORE_NO_SLOT;
  store->next_slot = 0;
  store->log_sequence = 0;
  tp_store_abort(store);
  for (uint32_t i = 0; i < map_entries(store); i++) {
    store->map[i] = (uint8_t)i;
  }
  for (uint32_t sector = 0; sector < store->config.log_sectors; sector++) {
    const uint32_t sequence = sealed(store, sector, &unreadable);
    if (sequence > store->log_sequence) {
      newest = sector;
      store->log_sequence = sequence;
    }
  }
  /* A cut makes one header unreadable at most: where all are, the memory is out of reach, not empty. */
  if (newest == NONE && !format && unreadable == store->config.log_sectors) {
    return TP_ERR_FLASH;
  }
  store->log_sector = newest == NONE ? store->config.log_sectors - 1u : newest;
  const tp_status status = newest == NONE || format ? rotate(store) : replay(store);
  store->mounted = status == TP_OK ? 1u : 0u;
  return status;
}
