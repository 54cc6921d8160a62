/* Slots: which is free, and how one becomes free that is not. A slot is taken only where its block was erased in full
 * and all of it reads as erased. */
#include <string.h>

#include "tp_store_log.h"

#define PIECE_BYTES 64u

uint32_t tp_store_slot_count(const tp_store *store) { return store->blocks * store->block_slots; }

static uint32_t physical_sector(const tp_store *store, uint32_t physical) {
  return store->config.log_sectors + physical * store->block_sectors;
}

static TP_NOINLINE uint32_t offset_in(const tp_store *store, uint32_t physical, uint32_t slot) {
  return physical_sector(store, physical) * store->config.flash->sector_bytes +
         slot % store->block_slots * store->slot_stride;
}

uint32_t tp_store_slot_offset(const tp_store *store, uint32_t slot) {
  return offset_in(store, store->map[slot / store->block_slots] & TP_STORE_PHYSICAL, slot);
}

int tp_store_slot_counts(const tp_store *store, uint32_t slot, uint32_t *bytes) {
  const uint32_t unit = store->config.flash->write_unit;
  uint32_t used = 0;
  int counts = store->upload.slot == slot;
  if (counts) {
    used = store->upload.done - store->upload.done % unit;
  }
  for (uint32_t i = 0; i < store->count; i++) {
    const tp_store_part part = tp_store_part_in(&store->entries[i], slot);
    if (part != TP_STORE_PARTS) {
      used = (store->entries[i].bytes[part] + unit - 1u) / unit * unit;
      counts = 1;
    }
  }
  if (bytes != NULL) {
    *bytes = used;
  }
  return counts;
}

static int all_erased(const uint8_t *data, uint32_t length, uint8_t erased) {
  for (uint32_t i = 0; i < length; i++) {
    if (data[i] != erased) {
      return 0;
    }
  }
  return 1;
}

int tp_store_slot_erased(const tp_store *store, uint32_t slot) {
  const tp_flash *flash = store->config.flash;
  const uint32_t offset = tp_store_slot_offset(store, slot);
  uint8_t piece[PIECE_BYTES];
  if ((store->map[slot / store->block_slots] & TP_STORE_CLEAN) == 0) {
    return 0;
  }
  for (uint32_t at = 0; at < store->slot_stride; at += PIECE_BYTES) {
    const uint32_t length = store->slot_stride - at < PIECE_BYTES ? store->slot_stride - at : PIECE_BYTES;
    if (flash->read(flash->context, offset + at, piece, length) != TP_OK || !all_erased(piece, length, flash->erased)) {
      return 0;
    }
  }
  return 1;
}

tp_status tp_store_program(const tp_store *store, uint32_t offset, const uint8_t *data, uint32_t length) {
  const tp_flash *flash = store->config.flash;
  const uint32_t unit = flash->write_unit;
  uint32_t begin = 0;
  for (uint32_t at = 0; at < length; at += unit) {
    const int skip = all_erased(data + at, unit, flash->erased);
    const uint32_t end = skip ? at : at + unit;
    if ((skip || end == length) && end > begin) {
      const tp_status status = flash->prog(flash->context, offset + begin, data + begin, end - begin);
      if (status != TP_OK) {
        return status;
      }
    }
    begin = skip ? at + unit : begin;
  }
  return TP_OK;
}

static tp_status erase(const tp_store *store, uint32_t physical) {
  const tp_flash *flash = store->config.flash;
  tp_status status = TP_OK;
  for (uint32_t i = 0; i < store->block_sectors && status == TP_OK; i++) {
    status = flash->erase(flash->context, physical_sector(store, physical) + i);
  }
  return status;
}

static tp_status copy(const tp_store *store, uint32_t from, uint32_t to, uint32_t length) {
  const tp_flash *flash = store->config.flash;
  uint8_t piece[PIECE_BYTES];
  for (uint32_t at = 0; at < length; at += PIECE_BYTES) {
    const uint32_t bytes = length - at < PIECE_BYTES ? length - at : PIECE_BYTES;
    tp_status status = flash->read(flash->context, from + at, piece, bytes);
    if (status == TP_OK) {
      status = tp_store_program(store, to + at, piece, bytes);
    }
    if (status != TP_OK) {
      return status;
    }
  }
  return TP_OK;
}

tp_status tp_store_collect_block(tp_store *store, uint32_t block) {
  tp_status status = TP_OK;
  if (store->block_slots == 1u) {
    /* Until an erasure has ended, the log says that the block is not clean: it may read as erased long before it is. */
    if ((store->map[block] & TP_STORE_CLEAN) != 0) {
      status = tp_store_log_block(store, block, block);
    }
    if (status == TP_OK) {
      status = erase(store, block);
    }
    return status == TP_OK ? tp_store_log_block(store, block, block | TP_STORE_CLEAN) : status;
  }
  const uint32_t spare = store->map[store->blocks] & TP_STORE_PHYSICAL;
  status = erase(store, spare);
  for (uint32_t i = 0; i < store->block_slots && status == TP_OK; i++) {
    const uint32_t slot = block * store->block_slots + i;
    uint32_t bytes;
    if (tp_store_slot_counts(store, slot, &bytes)) {
      status = copy(store, tp_store_slot_offset(store, slot), offset_in(store, spare, slot), bytes);
    }
  }
  return status == TP_OK ? tp_store_log_block(store, block, spare | TP_STORE_CLEAN) : status;
}

/* The block, from that of next_slot on, with the fewest slots that count; or `blocks`, where all do everywhere. */
static uint32_t emptiest_block(const tp_store *store) {
  uint32_t found = store->blocks, fewest = store->block_slots;
  for (uint32_t i = 0; i < store->blocks; i++) {
    const uint32_t block = (store->next_slot / store->block_slots + i) % store->blocks;
    uint32_t counting = 0;
    for (uint32_t slot = 0; slot < store->block_slots; slot++) {
      counting += tp_store_slot_counts(store, block * store->block_slots + slot, NULL) ? 1u : 0u;
    }
    if (counting < fewest) {
      found = block;
      fewest = counting;
    }
  }
  return found;
}

tp_status tp_store_take_slot(tp_store *store, uint16_t *slot) {
  const uint32_t slots = tp_store_slot_count(store);
  uint32_t found = slots;
  for (uint32_t i = 0; i < slots && found == slots; i++) {
    const uint32_t candidate = (store->next_slot + i) % slots;
    if (!tp_store_slot_counts(store, candidate, NULL) && tp_store_slot_erased(store, candidate)) {
      found = candidate;
    }
  }
  if (found == slots) {
    const uint32_t block = emptiest_block(store);
    if (block == store->blocks) {
      return TP_ERR_FULL;
    }
    const tp_status status = tp_store_collect_block(store, block);
    if (status != TP_OK) {
      return status;
    }
    found = block * store->block_slots;
    while (tp_store_slot_counts(store, found, NULL)) {
      found++;
    }
  }
  store->next_slot = found + 1u;
  *slot = (uint16_t)found;
  return TP_OK;
}
