#include "tp_adapters_memory.h"

#include <string.h>

#include "tinypeft/tp_id.h"

/* Memory */

static void *memory_of(const tp_adapters *adapters, uint32_t index) {
  return adapters->model->resident(adapters->model->self, index);
}

void tp_adapters_serve(tp_adapters *adapters, uint32_t index) {
  const tp_model *model = adapters->model;
  adapters->serving = index;
  if (index == TP_ADAPTERS_BASE) {
    model->use_adapter(model->self, NULL);
    return;
  }
  adapters->residents[index].used = ++adapters->clock;
  model->use_adapter(model->self, memory_of(adapters, index));
}

void tp_resident_forget(tp_resident *resident) {
  memset(resident, 0, sizeof *resident);
  resident->part = TP_STORE_PARTS;
}

uint32_t tp_adapters_make_room(tp_adapters *adapters) {
  uint32_t chosen = 0;
  uint64_t least = UINT64_MAX;
  for (uint32_t i = 0; i < TP_RESIDENT; i++) {
    const tp_resident *resident = &adapters->residents[i];
    const uint64_t order = (uint64_t)resident->changed << 32 | resident->used;
    if (i != adapters->serving && order < least) {
      least = order;
      chosen = i;
    }
  }
  if (chosen == adapters->serving) {
    tp_adapters_serve(adapters, TP_ADAPTERS_BASE);
  }
  tp_resident_forget(&adapters->residents[chosen]);
  return chosen;
}

/* The memory of an adapter as the store has it or, where that was trained since, as it became. */
static uint32_t find_resident(const tp_adapters *adapters, const tp_store_entry *entry, tp_store_part part) {
  for (uint32_t i = 0; i < TP_RESIDENT; i++) {
    const tp_resident *resident = &adapters->residents[i];
    if (tp_id_same(resident->id, entry->id) && resident->part == part && resident->version == entry->version[part]) {
      return i;
    }
  }
  return TP_ADAPTERS_BASE;
}

/* Parts of the store as packages */

typedef struct {
  const tp_store *store;
  const tp_store_entry *entry;
  tp_store_part part;
} stored_part;

static tp_status read_part(void *context, uint32_t offset, void *data, uint32_t length) {
  const stored_part *stored = context;
  return tp_store_read(stored->store, stored->entry, stored->part, offset, data, length);
}

static tp_status read_header(const tp_adapters *adapters, const tp_store_entry *entry, tp_store_part part,
                             tp_package_header *header) {
  uint8_t bytes[TP_PACKAGE_HEADER_BYTES];
  const tp_status status = tp_store_read(adapters->store, entry, part, 0, bytes, sizeof bytes);
  return status != TP_OK ? status : tp_package_parse(bytes, header);
}

tp_status tp_adapters_describe(const tp_adapters *adapters, const tp_store_entry *entry, tp_store_part part,
                               tp_adapters_package *package) {
  const tp_status status = read_header(adapters, entry, part, &package->header);
  return status != TP_OK ? status
                         : tp_store_read(adapters->store, entry, part,
                                         TP_PACKAGE_HEADER_BYTES + package->header.payload_bytes + 4u, package->digest,
                                         TP_DIGEST_BYTES);
}

void tp_adapters_written(tp_adapters *adapters, uint32_t index) {
  adapters->model->replaced_adapter(adapters->model->self, memory_of(adapters, index));
}

tp_status tp_adapters_check(const tp_adapters *adapters, const tp_store_entry *entry, tp_store_part part,
                            tp_package_header *header) {
  const tp_status status = read_header(adapters, entry, part, header);
  return status != TP_OK ? status : tp_package_fits(adapters->model->package_info, header);
}

tp_status tp_adapters_read(tp_adapters *adapters, const tp_store_entry *entry, tp_store_part part,
                           const tp_package_header *header, uint32_t index) {
  stored_part stored = {adapters->store, entry, part};
  const tp_status status =
      tp_package_load(adapters->model->package_info, read_part, &stored, header, memory_of(adapters, index));
  tp_adapters_written(adapters, index);
  return status;
}

static tp_status load(tp_adapters *adapters, const tp_store_entry *entry, tp_store_part part) {
  tp_package_header header;
  tp_status status = tp_adapters_check(adapters, entry, part, &header);
  if (status != TP_OK) {
    return status;
  }
  const uint32_t index = tp_adapters_make_room(adapters);
  tp_resident *resident = &adapters->residents[index];
  status = tp_adapters_read(adapters, entry, part, &header, index);
  if (status == TP_OK) {
    memcpy(resident->id, entry->id, sizeof resident->id);
    resident->version = entry->version[part];
    resident->part = (uint8_t)part;
    tp_adapters_serve(adapters, index);
  }
  return status;
}

/* Which adapter serves */

tp_status tp_adapters_init(tp_adapters *adapters, const tp_model *model, tp_store *store, const tp_security *security) {
  memset(adapters, 0, sizeof *adapters);
  adapters->model = model;
  adapters->store = store;
  adapters->security = security;
  for (uint32_t i = 0; i < TP_RESIDENT; i++) {
    tp_resident_forget(&adapters->residents[i]);
  }
  tp_adapters_serve(adapters, 0);
  const tp_store_entry *active = store != NULL ? tp_store_active(store) : NULL;
  const tp_status status = active != NULL ? tp_adapters_use(adapters, active->id) : TP_OK;
  if (status != TP_OK) {
    tp_adapters_serve(adapters, TP_ADAPTERS_BASE);
  }
  return status;
}

tp_status tp_adapters_find(const tp_adapters *adapters, const char *id, const tp_store_entry **entry) {
  if (adapters->store == NULL) {
    return TP_ERR_UNSUPPORTED;
  }
  *entry = tp_store_find(adapters->store, id);
  return *entry != NULL ? TP_OK : TP_ERR_NOT_FOUND;
}

tp_status tp_adapters_use(tp_adapters *adapters, const char *id) {
  if (id == NULL) {
    tp_adapters_serve(adapters, TP_ADAPTERS_BASE);
    return TP_OK;
  }
  const tp_store_entry *entry;
  const tp_status status = tp_adapters_find(adapters, id, &entry);
  if (status != TP_OK) {
    return status;
  }
  const tp_store_part part = tp_store_serving(entry);
  if (part == TP_STORE_PARTS) {
    return TP_ERR_NOT_FOUND;
  }
  const uint32_t index = find_resident(adapters, entry, part);
  if (index == TP_ADAPTERS_BASE) {
    return load(adapters, entry, part);
  }
  tp_adapters_serve(adapters, index);
  return TP_OK;
}

tp_status tp_adapters_activate(tp_adapters *adapters, const char *id) {
  if (adapters->store == NULL) {
    return TP_ERR_UNSUPPORTED;
  }
  /* Loaded first: what cannot serve does not become active. */
  const tp_store_entry *entry = id != NULL ? tp_store_find(adapters->store, id) : NULL;
  if (id != NULL && entry == NULL) {
    return TP_ERR_NOT_FOUND;
  }
  tp_status status = TP_OK;
  if (entry != NULL && entry->slot[TP_STORE_CANDIDATE] != TP_STORE_NO_SLOT &&
      find_resident(adapters, entry, TP_STORE_CANDIDATE) == TP_ADAPTERS_BASE) {
    status = load(adapters, entry, TP_STORE_CANDIDATE);
  }
  if (status == TP_OK) {
    status = tp_store_activate(adapters->store, id);
  }
  return status == TP_OK ? tp_adapters_use(adapters, id) : status;
}

/* Forget what is in memory of a part that has changed; where it serves, what the store now says does. */
static tp_status drop(tp_adapters *adapters, const char *id, uint32_t parts) {
  int served = 0;
  for (uint32_t i = 0; i < TP_RESIDENT; i++) {
    tp_resident *resident = &adapters->residents[i];
    if (tp_id_same(resident->id, id) && (parts >> resident->part & 1u) != 0) {
      tp_resident_forget(resident);
      served |= adapters->serving == i;
    }
  }
  if (served) {
    tp_adapters_serve(adapters, TP_ADAPTERS_BASE);
    const tp_store_entry *entry = tp_store_find(adapters->store, id);
    if (entry != NULL && entry->slot[TP_STORE_CONFIRMED] != TP_STORE_NO_SLOT) {
      return tp_adapters_use(adapters, id);
    }
  }
  return TP_OK;
}

void tp_adapters_replaced(tp_adapters *adapters, const char *id) {
  for (uint32_t i = 0; i < TP_RESIDENT; i++) {
    tp_resident *resident = &adapters->residents[i];
    if (tp_id_same(resident->id, id) && resident->part == TP_STORE_CANDIDATE) {
      if (adapters->serving == i) {
        resident->part = TP_STORE_PARTS;
      } else {
        tp_resident_forget(resident);
      }
    }
  }
}

tp_status tp_adapters_least_counter(const tp_adapters *adapters, const char *id, uint32_t *least) {
  const tp_security *security = adapters->security;
  const tp_store_entry *entry = tp_store_find(adapters->store, id);
  *least = entry != NULL ? entry->counter : 0;
  if (security == NULL || security->monotonic_counter == NULL) {
    return TP_OK;
  }
  uint32_t value = 0;
  const tp_status status = security->monotonic_counter(security->context, 0, &value);
  *least = value > *least ? value : *least;
  return status;
}

#define PART(part) (1u << (part))

tp_status tp_adapters_confirm(tp_adapters *adapters, const char *id) {
  const tp_security *security = adapters->security;
  const tp_store_entry *entry;
  tp_adapters_package package;
  tp_status status = tp_adapters_find(adapters, id, &entry);
  if (status == TP_OK && (entry->slot[TP_STORE_CANDIDATE] == TP_STORE_NO_SLOT || !entry->on_test)) {
    status = TP_ERR_STATE;
  }
  if (status == TP_OK) {
    status = tp_adapters_describe(adapters, entry, TP_STORE_CANDIDATE, &package);
  }
  if (status == TP_OK && security != NULL && security->monotonic_counter != NULL) {
    uint32_t value = 0;
    status = security->monotonic_counter(security->context, package.header.identity.counter, &value);
  }
  if (status == TP_OK) {
    status = tp_store_confirm(adapters->store, id, package.header.identity.counter);
  }
  if (status != TP_OK) {
    return status;
  }
  status = drop(adapters, id, PART(TP_STORE_CONFIRMED));
  for (uint32_t i = 0; i < TP_RESIDENT; i++) {
    tp_resident *resident = &adapters->residents[i];
    if (tp_id_same(resident->id, id) && resident->part == TP_STORE_CANDIDATE) {
      resident->part = TP_STORE_CONFIRMED;
    }
  }
  return status;
}

tp_status tp_adapters_revert(tp_adapters *adapters, const char *id) {
  const tp_store_entry *entry;
  tp_status status = tp_adapters_find(adapters, id, &entry);
  if (status == TP_OK) {
    status = tp_store_revert(adapters->store, id);
  }
  return status == TP_OK ? drop(adapters, id, PART(TP_STORE_CANDIDATE)) : status;
}

tp_status tp_adapters_delete(tp_adapters *adapters, const char *id) {
  char named[TP_ID_BYTES]; /* `id` may be the entry's own, which deleting clears */
  const tp_store_entry *entry;
  tp_status status = tp_adapters_find(adapters, id, &entry);
  if (status == TP_OK) {
    status = tp_id_set(named, id, tp_id_length(id));
  }
  if (status == TP_OK) {
    status = tp_store_delete(adapters->store, named, TP_STORE_PARTS);
  }
  return status == TP_OK ? drop(adapters, named, PART(TP_STORE_PARTS + 1) - 1u) : status;
}

/* Changing what serves */

tp_status tp_adapters_write(tp_adapters *adapters) {
  const tp_model *model = adapters->model;
  if (model->unmerge != NULL) {
    model->unmerge(model->self);
  }
  if (adapters->serving == TP_ADAPTERS_BASE) {
    const void *base = model->adapter(model->self);
    const uint32_t index = tp_adapters_make_room(adapters);
    memcpy(memory_of(adapters, index), base, model->adapter_bytes);
    tp_adapters_written(adapters, index);
    tp_adapters_serve(adapters, index);
  }
  tp_resident *resident = &adapters->residents[adapters->serving];
  tp_resident_forget(resident);
  resident->used = adapters->clock;
  resident->changed = 1;
  return TP_OK;
}

tp_status tp_adapters_load(tp_adapters *adapters, const uint8_t *package, uint32_t bytes) {
  const tp_model *model = adapters->model;
  tp_status status = adapters->serving == TP_ADAPTERS_BASE ? tp_adapters_write(adapters) : TP_OK;
  if (status == TP_OK) {
    status = model->load_adapter(model->self, package, bytes);
  }
  return status == TP_OK ? tp_adapters_write(adapters) : status;
}

tp_status tp_adapters_train(tp_adapters *adapters) {
  if (adapters->serving == TP_ADAPTERS_BASE) {
    return TP_ERR_STATE;
  }
  adapters->residents[adapters->serving].changed = 1;
  return adapters->model->prepare_training(adapters->model->self);
}

tp_status tp_adapters_save(tp_adapters *adapters, const char *id, uint32_t version) {
  const tp_model *model = adapters->model;
  tp_store *store = adapters->store;
  tp_package_identity identity = {.version = version};
  if (store == NULL) {
    return TP_ERR_UNSUPPORTED;
  }
  if (adapters->serving == TP_ADAPTERS_BASE) {
    return TP_ERR_STATE;
  }
  tp_status status = tp_id_set(identity.id, id, tp_id_length(id));
  if (status == TP_OK) {
    status = tp_adapters_least_counter(adapters, id, &identity.counter);
  }
  if (status == TP_OK) {
    status = tp_store_begin(store, id, TP_STORE_CANDIDATE, model->package_bytes);
  }
  if (status != TP_OK) {
    return status;
  }
  uint8_t *package = model->arena(model->self);
  status = model->export_adapter(model->self, &identity, package, model->arena_bytes);
  if (status == TP_OK) {
    status = tp_store_append(store, package, model->package_bytes);
  }
  if (status == TP_OK) {
    status = tp_store_commit(store, version);
  }
  if (status != TP_OK) {
    tp_store_abort(store);
    return status;
  }
  const uint32_t serving = adapters->serving;
  tp_resident *resident = &adapters->residents[serving];
  tp_resident_forget(resident); /* so that it is not taken for one that was replaced */
  tp_adapters_replaced(adapters, identity.id);
  memcpy(resident->id, identity.id, sizeof resident->id);
  resident->version = version;
  resident->part = TP_STORE_CANDIDATE;
  resident->used = adapters->clock;
  return status;
}
