/* A store on flash that holds anything, then a sequence of operations on it. After each one every entry is whole, no
 * slot has two owners, and nothing is programmed that is not erased; after a mount it says what it said before. */
#include <string.h>

#include "harness.h"
#include "tinypeft/tp_crc.h"
#include "tinypeft/tp_flash_memory.h"
#include "tp_store_log.h"

#define SECTOR 512u
#define SECTORS_MAX 14u
#define SLOTS_MAX 128u
#define OBJECT_MAX 700u
#define OPERATIONS_MAX 24u

/* How the flash begins. CELLS: what the input has is split into cells that are given a right checksum. */
enum { ERASED, RAW, CELLS, STARTS };

enum { BEGIN, APPEND, COMMIT, UPLOAD, ACTIVATE, CONFIRM, REVERT, DELETE, COLLECT, REMOUNT };
enum { ABORT = REMOUNT + 1, FORMAT, FAULT, MUTATE, OPERATIONS };

static const char *const ids[] = {"a", "b", "c", "d-1", "fifteen.letters", "", "Wrong", "sixteen.letters."};

typedef struct {
  tp_flash_memory memory;
  tp_status (*prog)(void *context, uint32_t offset, const void *data, uint32_t length);
  tp_status (*erase)(void *context, uint32_t sector);
  uint8_t *bytes;
  tp_store store;
  tp_store_config config;
  uint32_t fault_in; /* so many operations of the flash from now on; 0: none */
  int unsure;        /* a fault: what counts is what the next mount finds */
  int worn_out;      /* the log has used up its numbers */
  uint16_t written[SLOTS_MAX]; /* what is in a slot that was committed: its seed, 0 for what is not known */
  uint32_t seed;               /* of the upload */
} device;

static device it;

static int fault(void) {
  if (it.fault_in == 0 || --it.fault_in > 0) {
    return 0;
  }
  it.unsure = 1;
  return 1;
}

static tp_status prog(void *context, uint32_t offset, const void *data, uint32_t length) {
  if (fault()) {
    return TP_ERR_FLASH;
  }
  require(it.prog(context, offset, data, length) == TP_OK, "only what is erased is programmed, in whole units");
  return TP_OK;
}

static tp_status erase(void *context, uint32_t sector) { return fault() ? TP_ERR_FLASH : it.erase(context, sector); }

NOT_TRACED static uint8_t content(uint32_t seed, uint32_t i) {
  return (uint8_t)(i % 7u == seed % 7u ? 0xFFu : seed * 31u + i);
}

static uint32_t geometry(fuzz_input *input) {
  static const uint32_t slots[] = {64, 100, 200, 250, 512, OBJECT_MAX}, units[] = {1, 4, 8, 32};
  const uint32_t choice = take_u8(input), slot = slots[choice % 6u], log = 2u + (choice / 6u & 1u);
  const uint32_t sectors = log + (slot > SECTOR ? 8u : 3u + (choice / 12u & 1u));
  const uint32_t unit = units[choice / 24u & 3u];
  static uint8_t memory[SECTORS_MAX * SECTOR];
  it.bytes = memory;
  tp_flash_memory_init(&it.memory, it.bytes, SECTOR, sectors, unit, choice >= 192u ? 0x00 : 0xFF);
  it.prog = it.memory.flash.prog;
  it.erase = it.memory.flash.erase;
  it.memory.flash.prog = prog;
  it.memory.flash.erase = erase;
  it.config = (tp_store_config){&it.memory.flash, log, slot, 1u + sectors % 3u};
  memset(it.bytes, it.memory.flash.erased, sectors * SECTOR);
  return log * SECTOR;
}

static void seal_cell(uint8_t *cell) {
  const uint32_t crc = tp_crc32(0, cell, TP_STORE_CELL_BYTES - 4u);
  memcpy(cell + TP_STORE_CELL_BYTES - 4u, &crc, sizeof crc);
}

/* The header of a log sector of this geometry. */
static void put_header(uint8_t *cell, uint32_t sequence) {
  const tp_flash *flash = &it.memory.flash;
  const uint32_t unit = flash->write_unit, stride = (it.config.slot_bytes + unit - 1u) / unit * unit;
  const uint32_t words[] = {sequence, 0, flash->sector_bytes, flash->sectors, it.config.log_sectors, stride};
  memset(cell, 0, TP_STORE_CELL_BYTES);
  memcpy(cell + 4, words, sizeof words);
  memcpy(cell + 8, "TPST", 4);
  cell[0] = 'H';
  cell[28] = (uint8_t)unit;
  cell[29] = flash->erased;
  cell[30] = 1;
  cell[31] = TP_STORE_ADAPTERS;
  seal_cell(cell);
}

static void fill(fuzz_input *input, uint32_t log_bytes) {
  static const char kinds[] = {'S', 'M', 'E', 'H'};
  const uint32_t start = take_u8(input) % STARTS;
  uint32_t length = start == ERASED ? 0 : take_u16(input) % (log_bytes + 1u);
  const uint8_t *bytes = take_bytes(input, &length);
  if (length > 0) {
    memcpy(it.bytes, bytes, length);
  }
  for (uint32_t at = 0; start == CELLS && at + TP_STORE_CELL_BYTES <= length; at += TP_STORE_CELL_BYTES) {
    uint8_t *cell = it.bytes + at;
    if (at % SECTOR == 0 && cell[0] != 0) { /* else any cell begins a sector */
      put_header(cell, cell[4]);
    } else {
      cell[0] = (uint8_t)(cell[0] < 4u ? kinds[cell[0]] : (char)cell[0]);
      seal_cell(cell);
    }
  }
}

/* A byte of the log becomes another, below a right checksum or not. */
static void mutate(fuzz_input *input, uint32_t log_bytes) {
  uint8_t *cell = it.bytes + take_u8(input) % (log_bytes / TP_STORE_CELL_BYTES) * TP_STORE_CELL_BYTES;
  const uint32_t at = take_u8(input);
  cell[at % TP_STORE_CELL_BYTES] = (uint8_t)take_u8(input);
  if ((at & 0x80u) != 0) {
    seal_cell(cell);
  }
}

NOT_TRACED static void check_content(const tp_store_entry *entry, tp_store_part part) {
  static uint8_t object[OBJECT_MAX];
  const uint32_t bytes = entry->bytes[part], seed = it.written[entry->slot[part]];
  require(bytes > 0 && bytes <= it.config.slot_bytes, "a part fits into a slot");
  require(tp_store_read(&it.store, entry, part, 0, object, bytes) == TP_OK, "a part can be read");
  require(tp_store_read(&it.store, entry, part, bytes, object, 1) == TP_ERR_ARGUMENT, "and nothing behind it");
  for (uint32_t i = 0; seed != 0 && i < bytes; i++) {
    require(object[i] == content(seed, i), "a part is what was committed");
  }
}

/* `deep`: what is in the slots, too. */
NOT_TRACED static void check(int deep) {
  const tp_store *store = &it.store;
  uint8_t named[SLOTS_MAX] = {0};
  uint32_t unused = 0, used = 0;
  const uint32_t slots = tp_store_slots(store, &unused);
  require(slots <= SLOTS_MAX && unused <= slots && store->count <= TP_STORE_ADAPTERS, "so many slots and ids");
  for (uint32_t i = 0; i < tp_store_count(store); i++) {
    const tp_store_entry *entry = tp_store_entry_at(store, i);
    require(tp_id_valid(entry->id) && tp_store_find(store, entry->id) == entry, "an id, once");
    require(!entry->on_test || entry->slot[TP_STORE_CANDIDATE] != TP_STORE_NO_SLOT, "a candidate is on test");
    for (uint32_t part = 0; part < TP_STORE_PARTS; part++) {
      const uint32_t slot = entry->slot[part];
      if (slot != TP_STORE_NO_SLOT) {
        require(slot < (store->mounted ? slots : SLOTS_MAX) && !named[slot], "a slot has one owner");
        named[slot] = 1;
        used++;
        if (deep && store->mounted) {
          check_content(entry, (tp_store_part)part);
        }
      }
    }
  }
  const tp_store_entry *active = tp_store_active(store);
  require(active == NULL || tp_store_serving(active) != TP_STORE_PARTS, "what is active can serve");
  uint32_t of = 0;
  const uint32_t done = tp_store_uploaded(store, &of);
  require(done <= of && of <= it.config.slot_bytes, "an upload fits");
  require(!store->mounted || used + (of > 0 ? 1u : 0u) + unused == slots, "the other slots are unused");
  require(of == 0 || store->upload.slot < slots, "an upload has a slot");
  require(of == 0 || !named[store->upload.slot], "of its own");
}

static void mount(int formats) {
  memset(&it.store, 0xAA, sizeof it.store);
  it.fault_in = 0;
  int reverted = 9;
  tp_status status = tp_store_mount(&it.store, &it.config, &reverted);
  if (status == TP_ERR_GEOMETRY && formats) {
    require(tp_store_begin(&it.store, "a", TP_STORE_CANDIDATE, 1) == TP_ERR_STATE, "first it is mounted");
    status = tp_store_format(&it.store);
  }
  it.worn_out = it.store.log_sequence == UINT32_MAX;
  require((status == TP_OK || it.worn_out) && (reverted == 0 || reverted == 1), "it mounts");
  it.unsure = 0;
  check(1);
}

/* Mount again: all is there as before, but a boot is counted. */
static void remount(void) {
  tp_store_entry before[TP_STORE_ADAPTERS];
  const uint32_t count = it.store.count, active = it.store.active;
  const int same = !it.unsure && it.store.mounted;
  memcpy(before, it.store.entries, sizeof before);
  mount(1);
  if (!same || !it.store.mounted) {
    return;
  }
  if (active != TP_STORE_NO_SLOT && before[active].on_test && before[active].boots++ >= it.config.test_boots) {
    before[active].boots = 0;
    tp_store_give_up(&before[active], TP_STORE_CANDIDATE);
    if (!tp_store_has_slots(&before[active]) && before[active].counter == 0) {
      return; /* forgotten, and the others have moved */
    }
  }
  require(count == it.store.count, "as many entries as before");
  for (uint32_t i = 0; i < count; i++) {
    tp_store_entry *entry = &before[i];
    const tp_store_entry *now = tp_store_find(&it.store, entry->id);
    require(now != NULL && memcmp(now, entry, sizeof *entry) == 0, "an entry is as before");
  }
}

NOT_TRACED static void append(uint32_t length) {
  uint8_t bytes[128];
  uint32_t of = 0;
  const uint32_t done = tp_store_uploaded(&it.store, &of);
  for (uint32_t i = 0; i < length; i++) {
    bytes[i] = content(it.seed, done + i);
  }
  const tp_status status = tp_store_append(&it.store, bytes, length);
  require(status == TP_OK || of == 0 || length > of - done || it.unsure, "what belongs to an upload is taken");
  if (status == TP_OK) {
    uint8_t back[128 - PLANTED_BYTES];
    require(tp_store_read_upload(&it.store, done, back, length) == TP_OK, "it reads back");
    require(memcmp(back, bytes, length) == 0, "as it was");
  }
}

static void commit(uint32_t version) {
  char id[TP_ID_BYTES];
  memcpy(id, it.store.upload.id, sizeof id);
  const uint32_t part = it.store.upload.part, slot = it.store.upload.slot;
  if (tp_store_commit(&it.store, version) == TP_OK) {
    const tp_store_entry *entry = tp_store_find(&it.store, id);
    require(entry != NULL && entry->slot[part] == slot && entry->version[part] == version, "a commit counts");
    it.written[slot] = (uint16_t)it.seed;
  }
}

static void operate(fuzz_input *input, uint32_t log_bytes) {
  const uint32_t what = take_u8(input) % OPERATIONS, choice = take_u8(input);
  const char *id = choice < 250u ? ids[choice % 8u] : NULL;
  const tp_store_part part = (tp_store_part)(choice / 8u % 4u);
  const uint32_t number = what <= UPLOAD ? take_u16(input) : choice / 32u;
  switch (what) {
    case BEGIN:
    case UPLOAD:
      if (tp_store_begin(&it.store, id, part, what == BEGIN ? number : 1u + number % it.config.slot_bytes) != TP_OK) {
        break;
      }
      it.written[it.store.upload.slot] = 0;
      it.seed = 1u + (it.seed + number) % 0xFFF0u;
      if (what == UPLOAD) {
        for (uint32_t left = it.store.upload.bytes; left > 0 && it.store.upload.slot != TP_STORE_NO_SLOT;) {
          const uint32_t length = left < 100u ? left : 100u;
          append(length);
          left -= length;
        }
        commit(number);
      }
      break;
    case APPEND:
      append(number % 129u);
      break;
    case COMMIT:
      commit(number);
      break;
    case ACTIVATE:
      (void)tp_store_activate(&it.store, id);
      break;
    case CONFIRM:
      (void)tp_store_confirm(&it.store, id, number);
      break;
    case REVERT:
      (void)tp_store_revert(&it.store, id);
      break;
    case DELETE:
      (void)tp_store_delete(&it.store, id, part);
      break;
    case COLLECT:
      (void)tp_store_collect(&it.store);
      break;
    case ABORT:
      tp_store_abort(&it.store);
      break;
    case FORMAT:
      (void)tp_store_format(&it.store);
      break;
    case FAULT:
      it.fault_in = 1u + choice % 16u;
      break;
    case MUTATE:
      mutate(input, log_bytes);
      memset(it.written, 0, sizeof it.written);
      it.unsure = 1;
      remount();
      break;
    case REMOUNT:
    default:
      remount();
  }
  check(what == COLLECT || what == UPLOAD || what == COMMIT);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  fuzz_input input = {data, (uint32_t)size};
  memset(&it, 0, sizeof it);
  const uint32_t log_bytes = geometry(&input);
  fill(&input, log_bytes);
  mount(1);
  for (uint32_t i = 0; i < OPERATIONS_MAX && input.left > 0 && it.store.mounted; i++) {
    operate(&input, log_bytes);
  }
  remount();
  const tp_status collected = tp_store_collect(&it.store);
  require(collected == TP_OK || it.worn_out, "it can be collected");
  check(1);
  return 0;
}
