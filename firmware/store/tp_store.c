/* The functions of tp_store.h but for uploads: each change is one cell of the log. */
#include <string.h>

#include "tp_store_log.h"

uint32_t tp_store_index(const tp_store *store, const char *id) {
  uint32_t index = 0;
  while (index < store->count && !tp_id_same(store->entries[index].id, id)) {
    index++;
  }
  return index;
}

static int power_of_two_up_to(uint32_t value, uint32_t most) {
  return value > 0 && value <= most && (value & (value - 1u)) == 0;
}

static tp_status set_geometry(tp_store *store, const tp_store_config *config) {
  const tp_flash *flash = config->flash;
  memset(store, 0, sizeof *store);
  store->config = *config;
  if (flash == NULL || !power_of_two_up_to(flash->write_unit, TP_FLASH_WRITE_UNIT_MAX) ||
      flash->sector_bytes % TP_STORE_CELL_BYTES != 0 ||
      flash->sector_bytes / TP_STORE_CELL_BYTES < TP_STORE_ADAPTERS + 5u || config->log_sectors < 2u ||
      config->log_sectors >= flash->sectors || flash->sectors > 0xFFFFFFFFu / flash->sector_bytes ||
      (flash->erased != 0xFFu && flash->erased != 0) || config->slot_bytes == 0 ||
      config->slot_bytes > flash->sectors * flash->sector_bytes || config->test_boots < 1u ||
      config->test_boots > 255u) {
    return TP_ERR_ARGUMENT;
  }
  const uint32_t stride = (config->slot_bytes + flash->write_unit - 1u) / flash->write_unit * flash->write_unit;
  const uint32_t slots = flash->sector_bytes / stride;
  store->slot_stride = stride;
  store->block_slots = slots > 0 ? slots : 1u;
  store->block_sectors = slots > 0 ? 1u : (stride + flash->sector_bytes - 1u) / flash->sector_bytes;
  const uint32_t physical = (flash->sectors - config->log_sectors) / store->block_sectors;
  if (physical < 2u || physical > TP_STORE_BLOCKS || physical * store->block_slots >= TP_STORE_NO_SLOT) {
    return TP_ERR_ARGUMENT;
  }
  store->blocks = slots > 1u ? physical - 1u : physical;
  return TP_OK;
}

int tp_store_has_slots(const tp_store_entry *entry) {
  return entry->slot[0] != TP_STORE_NO_SLOT || entry->slot[1] != TP_STORE_NO_SLOT || entry->slot[2] != TP_STORE_NO_SLOT;
}

int tp_store_copy(const tp_store *store, const char *id, tp_store_entry *entry) {
  const tp_store_entry *found = tp_store_find(store, id);
  if (found != NULL) {
    *entry = *found;
  }
  return found != NULL;
}

tp_store_part tp_store_part_in(const tp_store_entry *entry, uint32_t slot) {
  uint32_t part = 0;
  while (part < TP_STORE_PARTS && entry->slot[part] != slot) {
    part++;
  }
  return (tp_store_part)part;
}

void tp_store_give_up(tp_store_entry *entry, tp_store_part part) {
  entry->slot[part] = TP_STORE_NO_SLOT;
  entry->bytes[part] = 0;
  entry->version[part] = 0;
  if (part == TP_STORE_CANDIDATE) {
    entry->on_test = 0;
    entry->boots = 0;
  }
}

tp_status tp_store_put(tp_store *store, const tp_store_entry *entry) {
  const uint32_t index = tp_store_index(store, entry->id);
  return tp_store_log_entry(store, entry, index == store->active);
}

tp_status tp_store_mount(tp_store *store, const tp_store_config *config, int *reverted) {
  if (reverted != NULL) {
    *reverted = 0;
  }
  tp_status status = set_geometry(store, config);
  if (status != TP_OK) {
    store->blocks = 0;
    return status;
  }
  status = tp_store_log_open(store, 0);
  const tp_store_entry *active = tp_store_active(store);
  tp_store_entry entry;
  if (status != TP_OK || active == NULL || !active->on_test) {
    return status;
  }
  (void)tp_store_copy(store, active->id, &entry);
  const int over = entry.boots >= config->test_boots;
  if (over) {
    tp_store_give_up(&entry, TP_STORE_CANDIDATE);
  } else {
    entry.boots++;
  }
  status = tp_store_put(store, &entry);
  if (status != TP_OK) {
    store->mounted = 0;
  } else if (reverted != NULL) {
    *reverted = over;
  }
  return status;
}

tp_status tp_store_format(tp_store *store) {
  return store->blocks > 0 ? tp_store_log_open(store, 1) : TP_ERR_STATE;
}

const tp_store_entry *tp_store_find(const tp_store *store, const char *id) {
  return id == NULL ? NULL : tp_store_entry_at(store, tp_store_index(store, id));
}

const tp_store_entry *tp_store_entry_at(const tp_store *store, uint32_t index) {
  return index < store->count ? &store->entries[index] : NULL;
}

uint32_t tp_store_count(const tp_store *store) { return store->count; }

const tp_store_entry *tp_store_active(const tp_store *store) { return tp_store_entry_at(store, store->active); }

tp_store_part tp_store_serving(const tp_store_entry *entry) {
  if (entry->on_test && entry->slot[TP_STORE_CANDIDATE] != TP_STORE_NO_SLOT) {
    return TP_STORE_CANDIDATE;
  }
  return entry->slot[TP_STORE_CONFIRMED] != TP_STORE_NO_SLOT ? TP_STORE_CONFIRMED : TP_STORE_PARTS;
}

tp_status tp_store_read(const tp_store *store, const tp_store_entry *entry, tp_store_part part, uint32_t offset,
                        void *data, uint32_t length) {
  const tp_flash *flash = store->config.flash;
  if (part >= TP_STORE_PARTS) {
    return TP_ERR_ARGUMENT;
  }
  if (entry == NULL || entry->slot[part] == TP_STORE_NO_SLOT) {
    return TP_ERR_NOT_FOUND;
  }
  if (offset > entry->bytes[part] || length > entry->bytes[part] - offset) {
    return TP_ERR_ARGUMENT;
  }
  return flash->read(flash->context, tp_store_slot_offset(store, entry->slot[part]) + offset, data, length);
}

tp_status tp_store_activate(tp_store *store, const char *id) {
  const tp_store_entry *now = tp_store_active(store);
  tp_store_entry entry;
  if (!store->mounted) {
    return TP_ERR_STATE;
  }
  if (id == NULL) {
    return now == NULL ? TP_OK : tp_store_log_entry(store, now, 0);
  }
  if (!tp_store_copy(store, id, &entry)) {
    return TP_ERR_NOT_FOUND;
  }
  entry.on_test = entry.slot[TP_STORE_CANDIDATE] != TP_STORE_NO_SLOT;
  if (tp_store_serving(&entry) == TP_STORE_PARTS) {
    return TP_ERR_NOT_FOUND;
  }
  const int active = now != NULL && tp_id_same(now->id, id) && now->on_test == entry.on_test;
  return active ? TP_OK : tp_store_log_entry(store, &entry, 1);
}

tp_status tp_store_confirm(tp_store *store, const char *id, uint32_t counter) {
  tp_store_entry entry;
  if (!tp_store_copy(store, id, &entry)) {
    return TP_ERR_NOT_FOUND;
  }
  if (!entry.on_test) {
    return TP_ERR_STATE;
  }
  if (counter < entry.counter) {
    return TP_ERR_ROLLBACK;
  }
  entry.slot[TP_STORE_CONFIRMED] = entry.slot[TP_STORE_CANDIDATE];
  entry.bytes[TP_STORE_CONFIRMED] = entry.bytes[TP_STORE_CANDIDATE];
  entry.version[TP_STORE_CONFIRMED] = entry.version[TP_STORE_CANDIDATE];
  entry.counter = counter;
  tp_store_give_up(&entry, TP_STORE_CANDIDATE);
  return tp_store_put(store, &entry);
}

tp_status tp_store_revert(tp_store *store, const char *id) {
  tp_store_entry entry;
  if (!tp_store_copy(store, id, &entry)) {
    return TP_ERR_NOT_FOUND;
  }
  if (entry.slot[TP_STORE_CANDIDATE] == TP_STORE_NO_SLOT) {
    return TP_ERR_STATE;
  }
  tp_store_give_up(&entry, TP_STORE_CANDIDATE);
  return tp_store_put(store, &entry);
}

tp_status tp_store_delete(tp_store *store, const char *id, tp_store_part part) {
  tp_store_entry entry;
  if (part != TP_STORE_CHECKPOINT && part != TP_STORE_PARTS) {
    return TP_ERR_ARGUMENT;
  }
  if (!tp_store_copy(store, id, &entry) ||
      (part == TP_STORE_PARTS ? !tp_store_has_slots(&entry) : entry.slot[part] == TP_STORE_NO_SLOT)) {
    return TP_ERR_NOT_FOUND;
  }
  tp_store_give_up(&entry, TP_STORE_CHECKPOINT);
  if (part == TP_STORE_PARTS) {
    tp_store_give_up(&entry, TP_STORE_CONFIRMED);
    tp_store_give_up(&entry, TP_STORE_CANDIDATE);
  }
  if (tp_id_same(store->upload.id, entry.id) && (part == TP_STORE_PARTS || part == store->upload.part)) {
    tp_store_abort(store);
  }
  return tp_store_put(store, &entry);
}

tp_status tp_store_collect(tp_store *store) {
  tp_status status = store->mounted ? TP_OK : TP_ERR_STATE;
  for (uint32_t block = 0; status == TP_OK && block < store->blocks; block++) {
    int erasable = 0;
    for (uint32_t i = 0; i < store->block_slots; i++) {
      const uint32_t slot = block * store->block_slots + i;
      erasable |= !tp_store_slot_counts(store, slot, NULL) && !tp_store_slot_erased(store, slot);
    }
    if (erasable) {
      status = tp_store_collect_block(store, block);
    }
  }
  return status;
}

uint32_t tp_store_slots(const tp_store *store, uint32_t *unused) {
  const uint32_t slots = store->mounted ? tp_store_slot_count(store) : 0;
  uint32_t free_slots = 0;
  for (uint32_t slot = 0; slot < slots; slot++) {
    free_slots += tp_store_slot_counts(store, slot, NULL) ? 0 : 1u;
  }
  *unused = free_slots;
  return slots;
}
