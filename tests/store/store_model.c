#include "store_model.h"

#include <string.h>

/* Byte `i` of an object. Runs of erased bytes lie at its start, in it or at its end: they are not programmed. */
static uint8_t content(const char *id, uint32_t part, uint32_t version, uint32_t bytes, uint8_t erased, uint32_t i) {
  const uint32_t run = version % 3u;
  const int hole = run == 0 ? i < 40u : run == 1u ? i >= 64u && i < 130u : i + 40u >= bytes;
  const uint32_t seed = ((uint32_t)(uint8_t)id[0] * 31u + part) * 131u + version;
  return hole ? erased : (uint8_t)((seed * 2654435761u + i * 40503u * (i | 1u)) >> 13);
}

static model_entry *find(model *expected, const char *id) {
  for (uint32_t i = 0; i < expected->count; i++) {
    if (strcmp(expected->entries[i].id, id) == 0) {
      return &expected->entries[i];
    }
  }
  return NULL;
}

static void give_up(model_entry *entry, tp_store_part part) {
  entry->there[part] = 0;
  entry->bytes[part] = entry->version[part] = 0;
  if (part == TP_STORE_CANDIDATE) {
    entry->on_test = 0;
    entry->boots = 0;
  }
}

/* Entries that nothing is left of go; nothing is active that cannot serve. */
static void settle(model *expected) {
  uint32_t kept = 0;
  for (uint32_t i = 0; i < expected->count; i++) {
    const model_entry entry = expected->entries[i];
    const int serves = entry.there[TP_STORE_CONFIRMED] || (entry.there[TP_STORE_CANDIDATE] && entry.on_test);
    if (!serves && strcmp(expected->active, entry.id) == 0) {
      expected->active[0] = 0;
    }
    if (entry.there[0] || entry.there[1] || entry.there[2] || entry.counter > 0) {
      expected->entries[kept++] = entry;
    }
  }
  expected->count = kept;
}

static void model_mount(model *expected) {
  model_entry *entry = find(expected, expected->active);
  if (entry != NULL && entry->on_test) {
    if (entry->boots >= expected->test_boots) {
      give_up(entry, TP_STORE_CANDIDATE);
    } else {
      entry->boots++;
    }
  }
}

static void model_upload(model *expected, const step *done) {
  model_entry *entry = find(expected, done->id);
  if (entry == NULL) {
    entry = &expected->entries[expected->count++];
    memset(entry, 0, sizeof *entry);
    memcpy(entry->id, done->id, strlen(done->id));
  }
  give_up(entry, done->part);
  entry->there[done->part] = 1;
  entry->bytes[done->part] = done->bytes;
  entry->version[done->part] = done->value;
}

static void model_confirm(model_entry *entry, uint32_t counter) {
  entry->there[TP_STORE_CONFIRMED] = 1;
  entry->bytes[TP_STORE_CONFIRMED] = entry->bytes[TP_STORE_CANDIDATE];
  entry->version[TP_STORE_CONFIRMED] = entry->version[TP_STORE_CANDIDATE];
  entry->counter = counter;
  give_up(entry, TP_STORE_CANDIDATE);
}

void model_step(model *expected, const step *done) {
  model_entry *entry = done->id == NULL ? NULL : find(expected, done->id);
  switch (done->kind) {
    case MOUNT:
      model_mount(expected);
      break;
    case UPLOAD:
      model_upload(expected, done);
      break;
    case ACTIVATE:
      memset(expected->active, 0, TP_ID_BYTES);
      if (entry != NULL) {
        memcpy(expected->active, done->id, strlen(done->id));
        entry->on_test = entry->there[TP_STORE_CANDIDATE];
      }
      break;
    case CONFIRM:
      model_confirm(entry, done->value);
      break;
    case REVERT:
      give_up(entry, TP_STORE_CANDIDATE);
      break;
    case DELETE:
      for (uint32_t part = 0; part < TP_STORE_PARTS; part++) {
        if (done->part == TP_STORE_PARTS || done->part == (tp_store_part)part) {
          give_up(entry, (tp_store_part)part);
        }
      }
      break;
    case FORMAT:
      expected->count = 0;
      expected->active[0] = 0;
      break;
    case ABANDON:
    case COLLECT:
      break;
  }
  settle(expected);
}

static tp_status upload(tp_store *store, const step *done, uint32_t stop) {
  tp_status status = tp_store_begin(store, done->id, done->part, done->bytes);
  uint8_t piece[128];
  for (uint32_t at = 0, turn = 0; at < stop && status == TP_OK; turn++) {
    uint32_t length = turn % 3u == 0 ? 37u : turn % 3u == 1u ? sizeof piece : 91u;
    length = length < stop - at ? length : stop - at;
    for (uint32_t i = 0; i < length; i++) {
      piece[i] =
          content(done->id, done->part, done->value, done->bytes, store->config.flash->erased, at + i);
    }
    status = tp_store_append(store, piece, length);
    at += length;
  }
  return status;
}

tp_status store_step(tp_store *store, const tp_store_config *config, const step *done) {
  tp_status status = TP_OK;
  switch (done->kind) {
    case MOUNT:
      memset(store, 0xAA, sizeof *store);
      return tp_store_mount(store, config, NULL);
    case UPLOAD:
      status = upload(store, done, done->bytes);
      return status == TP_OK ? tp_store_commit(store, done->value) : status;
    case ABANDON:
      return upload(store, done, done->bytes / 2u);
    case ACTIVATE:
      return tp_store_activate(store, done->id);
    case CONFIRM:
      return tp_store_confirm(store, done->id, done->value);
    case REVERT:
      return tp_store_revert(store, done->id);
    case DELETE:
      return tp_store_delete(store, done->id, done->part);
    case COLLECT:
      return tp_store_collect(store);
    case FORMAT:
      return tp_store_format(store);
  }
  return TP_ERR_ARGUMENT;
}

static const char *part_differs(const model_entry *entry, uint32_t part, uint8_t erased, const tp_store *store,
                                const tp_store_entry *found) {
  if (entry->there[part] != (found->slot[part] != TP_STORE_NO_SLOT)) {
    return "a part is missing, or should be gone";
  }
  if (entry->bytes[part] != found->bytes[part] || entry->version[part] != found->version[part]) {
    return "a part of another version";
  }
  for (uint32_t at = 0; at < entry->bytes[part]; at += 64u) {
    uint8_t piece[64];
    const uint32_t length = entry->bytes[part] - at < 64u ? entry->bytes[part] - at : 64u;
    if (tp_store_read(store, found, (tp_store_part)part, at, piece, length) != TP_OK) {
      return "an object that cannot be read";
    }
    for (uint32_t i = 0; i < length; i++) {
      if (piece[i] != content(entry->id, part == TP_STORE_CONFIRMED ? TP_STORE_CANDIDATE : part, entry->version[part],
                              entry->bytes[part], erased, at + i)) {
        return "a damaged object";
      }
    }
  }
  return NULL;
}

const char *model_differs(const model *expected, const tp_store *store) {
  if (tp_store_count(store) != expected->count) {
    return "a wrong number of entries";
  }
  const tp_store_entry *active = tp_store_active(store);
  if (strcmp(active == NULL ? "" : active->id, expected->active) != 0) {
    return "another adapter is active";
  }
  for (uint32_t i = 0; i < expected->count; i++) {
    const model_entry *entry = &expected->entries[i];
    const tp_store_entry *found = tp_store_entry_at(store, i);
    if (strcmp(found->id, entry->id) != 0) {
      return "another id";
    }
    if (found->on_test != entry->on_test || found->boots != entry->boots || found->counter != entry->counter) {
      return "test, boots or counter";
    }
    for (uint32_t part = 0; part < TP_STORE_PARTS; part++) {
      const char *wrong = part_differs(entry, part, expected->erased, store, found);
      if (wrong != NULL) {
        return wrong;
      }
    }
  }
  return NULL;
}
