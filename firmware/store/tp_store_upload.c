/* Uploads: written in place, slot by slot; what was written counts once tp_store_commit() has said so in the log. */
#include <string.h>

#include "tp_store_log.h"

tp_status tp_store_begin(tp_store *store, const char *id, tp_store_part part, uint32_t bytes) {
  if (!store->mounted) {
    return TP_ERR_STATE;
  }
  char named[TP_ID_BYTES];
  if (id == NULL || tp_id_set(named, id, tp_id_length(id)) != TP_OK) {
    return TP_ERR_ID;
  }
  if ((part != TP_STORE_CANDIDATE && part != TP_STORE_CHECKPOINT) || bytes == 0) {
    return TP_ERR_ARGUMENT;
  }
  if (bytes > store->config.slot_bytes) {
    return TP_ERR_TOO_LARGE;
  }
  tp_store_abort(store);
  if (tp_store_index(store, id) == TP_STORE_ADAPTERS) {
    return TP_ERR_FULL;
  }
  uint16_t slot;
  const tp_status status = tp_store_take_slot(store, &slot);
  if (status == TP_OK) {
    memcpy(store->upload.id, named, sizeof named);
    store->upload.slot = slot;
    store->upload.part = (uint16_t)part;
    store->upload.bytes = bytes;
  }
  return status;
}

/* Program whole units from where the upload stands, and give it up where that fails. */
static tp_status program(tp_store *store, const uint8_t *data, uint32_t length) {
  const uint32_t unit = store->config.flash->write_unit;
  const uint32_t done = store->upload.done - store->upload.done % unit;
  const tp_status status =
      tp_store_program(store, tp_store_slot_offset(store, store->upload.slot) + done, data, length);
  if (status != TP_OK) {
    tp_store_abort(store);
  }
  return status;
}

tp_status tp_store_append(tp_store *store, const void *data, uint32_t length) {
  const uint8_t *from = data;
  if (store->upload.bytes == 0) {
    return TP_ERR_STATE;
  }
  if (length > store->upload.bytes - store->upload.done) {
    return TP_ERR_TOO_LARGE;
  }
  const uint32_t unit = store->config.flash->write_unit;
  while (length > 0) {
    const uint32_t filled = store->upload.done % unit;
    uint32_t taken = length - length % unit;
    tp_status status = TP_OK;
    if (filled == 0 && taken > 0) {
      status = program(store, from, taken);
    } else {
      taken = length < unit - filled ? length : unit - filled;
      memcpy(store->upload.unit + filled, from, taken);
      if (filled + taken == unit) {
        status = program(store, store->upload.unit, unit);
      }
    }
    if (status != TP_OK) {
      return status;
    }
    store->upload.done += taken;
    from += taken;
    length -= taken;
  }
  return TP_OK;
}

uint32_t tp_store_uploaded(const tp_store *store, uint32_t *of) {
  *of = store->upload.bytes;
  return store->upload.done;
}

tp_status tp_store_read_upload(void *context, uint32_t offset, void *data, uint32_t length) {
  const tp_store *store = context;
  uint8_t *to = data;
  if (store->upload.bytes == 0) {
    return TP_ERR_STATE;
  }
  const uint32_t done = store->upload.done;
  if (offset > done || length > done - offset) {
    return TP_ERR_ARGUMENT;
  }
  const tp_flash *flash = store->config.flash;
  const uint32_t programmed = done - done % flash->write_unit;
  tp_status status = TP_OK;
  if (offset < programmed && length > 0) {
    const uint32_t there = length < programmed - offset ? length : programmed - offset;
    status = flash->read(flash->context, tp_store_slot_offset(store, store->upload.slot) + offset, to, there);
    to += there;
    offset += there;
    length -= there;
  }
  if (length > 0) {
    memcpy(to, store->upload.unit + (offset - programmed), length);
  }
  return status;
}

tp_status tp_store_commit(tp_store *store, uint32_t version) {
  if (store->upload.bytes == 0) {
    return TP_ERR_STATE;
  }
  if (store->upload.done < store->upload.bytes) {
    return TP_ERR_TRUNCATED;
  }
  const uint32_t filled = store->upload.done % store->config.flash->write_unit;
  if (filled > 0) {
    memset(store->upload.unit + filled, store->config.flash->erased, sizeof store->upload.unit - filled);
    const tp_status status = program(store, store->upload.unit, store->config.flash->write_unit);
    if (status != TP_OK) {
      return status;
    }
  }
  tp_store_entry entry;
  if (!tp_store_copy(store, store->upload.id, &entry)) {
    memset(&entry, 0, sizeof entry);
    memset(entry.slot, 0xFF, sizeof entry.slot); /* TP_STORE_NO_SLOT */
    memcpy(entry.id, store->upload.id, TP_ID_BYTES);
  }
  const tp_store_part part = (tp_store_part)store->upload.part;
  tp_store_give_up(&entry, part);
  entry.slot[part] = store->upload.slot;
  entry.bytes[part] = store->upload.bytes;
  entry.version[part] = version;
  const tp_status status = tp_store_put(store, &entry);
  tp_store_abort(store);
  return status;
}

void tp_store_abort(tp_store *store) {
  store->upload.slot = TP_STORE_NO_SLOT;
  store->upload.bytes = 0;
  store->upload.done = 0;
}
