#include "tinypeft/tp_group_adapters.h"

#include <string.h>

#include "tinypeft/tp_adapters.h"
#include "tinypeft/tp_bytes.h"
#include "tinypeft/tp_count.h"
#include "tinypeft/tp_id.h"

tp_status tp_group_id(tp_span text, char id[TP_ID_BYTES]) {
  return tp_id_set(id, (const char *)text.data, text.length);
}

tp_status tp_group_receive(tp_server *server, const char *id, const tp_request *request) {
  tp_adapters *adapters = server->adapters;
  const uint32_t off = tp_request_u32(request, TP_KEY_OFF, 0);
  const tp_span data = tp_request_span(request, TP_KEY_DATA);
  uint32_t received, of, crc;
  tp_status status = TP_OK;
  if (off == 0) {
    if (!tp_request_has(request, TP_KEY_LEN)) {
      return TP_ERR_ARGUMENT;
    }
    status = tp_adapters_upload_begin(adapters, id, tp_request_u32(request, TP_KEY_LEN, 0));
  }
  const char *uploading = tp_adapters_uploading(adapters, &received, &of, &crc);
  if (status == TP_OK && (uploading == NULL || !tp_id_same(uploading, id))) {
    status = TP_ERR_STATE;
  }
  if (status == TP_OK && off == received) { /* else it has been received: its answer was lost */
    received += data.length;
    status = tp_adapters_upload(adapters, data.data, data.length);
  }
  tp_response_u32(&server->response, "off", received);
  server->upload_status = status;
  return status;
}

tp_store_part tp_group_newest(const tp_store_entry *entry) {
  return entry != NULL && entry->slot[TP_STORE_CANDIDATE] != TP_STORE_NO_SLOT ? TP_STORE_CANDIDATE : TP_STORE_CONFIRMED;
}

/* What of an adapter is in memory, or NULL. */
static const tp_resident *resident_of(const tp_adapters *adapters, const char *id) {
  for (uint32_t i = 0; i < TP_RESIDENT; i++) {
    if (tp_id_same(adapters->residents[i].id, id)) {
      return &adapters->residents[i];
    }
  }
  return NULL;
}

static void append_text(tp_response *response, const char *key, const char *id) {
  tp_response_text(response, key, id, tp_id_length(id));
}

#define ENTRY_ROOM 150u /* what a listed adapter takes at most */

static void append_entry(tp_server *server, const tp_store_entry *entry) {
  static const char *const names[TP_STORE_PARTS] = {"confirmed", "candidate", "checkpoint"};
  tp_response *response = &server->response;
  const tp_adapters *adapters = server->adapters;
  const tp_resident *resident = resident_of(adapters, entry->id);
  tp_response_begin_map(response, NULL);
  append_text(response, "id", entry->id);
  for (uint32_t part = 0; part < TP_STORE_PARTS; part++) {
    if (entry->slot[part] != TP_STORE_NO_SLOT) {
      tp_response_u32(response, names[part], entry->version[part]);
    }
  }
  tp_response_u32(response, "counter", entry->counter);
  if (entry->on_test != 0) {
    tp_response_bool(response, "on_test", 1);
    tp_response_u32(response, "boots", entry->boots);
  }
  tp_response_bool(response, "active", entry == tp_store_active(adapters->store));
  tp_response_bool(response, "resident", resident != NULL);
  tp_response_bool(response, "changed", resident != NULL && resident->changed != 0);
  tp_response_end(response);
}

static int command_list(tp_server *server, const tp_request *request) {
  tp_response *response = &server->response;
  const tp_adapters *adapters = server->adapters;
  const int base = adapters->serving == TP_ADAPTERS_BASE;
  const uint32_t count = tp_store_count(adapters->store);
  uint32_t unused = 0;
  const uint32_t slots = tp_store_slots(adapters->store, &unused);
  append_text(response, "serving", base ? "" : adapters->residents[adapters->serving].id);
  tp_response_bool(response, "base", base);
  tp_response_u32(response, "slots", slots);
  tp_response_u32(response, "unused", unused);
  tp_response_u32(response, "count", count);
  tp_response_begin_list(response, "adapters");
  for (uint32_t i = tp_request_u32(request, TP_KEY_FROM, 0); i < count; i++) {
    if (tp_response_room(response, "") < ENTRY_ROOM) {
      break;
    }
    append_entry(server, tp_store_entry_at(adapters->store, i));
  }
  tp_response_end(response);
  return TP_OK;
}

static int command_uploading(tp_server *server, const tp_request *request) {
  (void)request;
  tp_response *response = &server->response;
  uint32_t received, of, crc;
  const char *id = tp_adapters_uploading(server->adapters, &received, &of, &crc);
  if (id != NULL) {
    append_text(response, "id", id);
    tp_response_u32(response, "off", received);
    tp_response_u32(response, "len", of);
    tp_response_u32(response, "crc", crc);
  }
  tp_response_u32(response, "status", (uint32_t)-server->upload_status);
  return TP_OK;
}

static tp_status describe(tp_response *response, const tp_adapters *adapters, const char *id) {
  tp_adapters_package package;
  const tp_store_entry *entry = tp_store_find(adapters->store, id);
  const tp_store_part part = tp_group_newest(entry);
  const tp_status status = tp_adapters_describe(adapters, entry, part, &package);
  if (status != TP_OK) {
    return status;
  }
  tp_response_u32(response, "version", package.header.identity.version);
  tp_response_u32(response, "counter", package.header.identity.counter);
  tp_response_u32(response, "method", package.header.method);
  tp_response_u32(response, "rank", package.header.rank);
  tp_response_u32(response, "len", entry->bytes[part]);
  tp_response_bytes(response, "sha", package.digest, sizeof package.digest);
  tp_response_bool(response, "candidate", part == TP_STORE_CANDIDATE);
  return TP_OK;
}

/* Let `id`, or the base model, serve: after a reset, too, where the request does not say otherwise. */
static tp_status serve(tp_adapters *adapters, const tp_request *request, const char *id) {
  const int keep = !tp_request_has(request, TP_KEY_KEEP) || tp_request_bool(request, TP_KEY_KEEP);
  TP_COUNT_BEGIN();
  const tp_status status = keep ? tp_adapters_activate(adapters, id) : tp_adapters_use(adapters, id);
  TP_COUNT_END();
  return status;
}

static int command_deactivate(tp_server *server, const tp_request *request) {
  return serve(server->adapters, request, NULL);
}

/* All commands on an id. */
static int command_on_id(tp_server *server, const tp_request *request) {
  tp_response *response = &server->response;
  tp_adapters *adapters = server->adapters;
  char id[TP_ID_BYTES];
  uint32_t number = 0;
  tp_status status = tp_group_id(tp_request_span(request, TP_KEY_ID), id);
  if (status != TP_OK) {
    return status;
  }
  switch ((tp_adapters_command)response->header.command) {
    case TP_ADAPTERS_ACTIVATE:
      return serve(adapters, request, id);
    case TP_ADAPTERS_CONFIRM:
      return tp_adapters_confirm(adapters, id);
    case TP_ADAPTERS_REVERT:
      return tp_adapters_revert(adapters, id);
    case TP_ADAPTERS_DELETE:
      return tp_adapters_delete(adapters, id);
    case TP_ADAPTERS_SAVE:
      return tp_adapters_save(adapters, id, tp_request_u32(request, TP_KEY_VERSION, 0));
    case TP_ADAPTERS_CHECKPOINT:
      return tp_adapters_checkpoint(adapters, id, tp_request_u32(request, TP_KEY_STEP, 0));
    case TP_ADAPTERS_RESUME:
      status = tp_adapters_resume(adapters, id, &number);
      tp_response_u32(response, "step", number);
      return status;
    case TP_ADAPTERS_UPLOAD:
      return tp_group_receive(server, id, request);
    case TP_ADAPTERS_DESCRIBE:
      return describe(response, adapters, id);
    default:
      return TP_ERR_COMMAND;
  }
}

static int command_collect(tp_server *server, const tp_request *request) {
  (void)request;
  return tp_store_collect(server->adapters->store);
}

#define PARTS 8u

/* The ids of a list with commas between; TP_ERR_ARGUMENT where there are not exactly `count`. */
static tp_status parse_ids(tp_span list, tp_adapters_part *parts, uint32_t count) {
  tp_span left = list;
  for (uint32_t i = 0; i < count; i++) {
    tp_span id = {left.data, 0};
    while (id.length < left.length && id.data[id.length] != ',') {
      id.length++;
    }
    const tp_status status = tp_group_id(id, parts[i].id);
    if (status != TP_OK) {
      return status;
    }
    const uint32_t comma = id.length < left.length;
    if (comma != (i + 1u < count)) {
      return TP_ERR_ARGUMENT;
    }
    left.data += id.length + comma;
    left.length -= id.length + comma;
  }
  return TP_OK;
}

static int command_combine(tp_server *server, const tp_request *request) {
  tp_adapters_part parts[PARTS];
  const tp_span weights = tp_request_span(request, TP_KEY_WEIGHTS);
  const uint32_t count = weights.length / 4u;
  if (weights.length % 4u != 0 || count == 0 || count > PARTS) {
    return TP_ERR_ARGUMENT;
  }
  for (uint32_t i = 0; i < count; i++) {
    const uint32_t bits = tp_get_u32(weights.data + i * 4u);
    memcpy(&parts[i].weight, &bits, sizeof bits);
  }
  const tp_status status = parse_ids(tp_request_span(request, TP_KEY_IDS), parts, count);
  return status != TP_OK ? status
                         : tp_adapters_combine(server->adapters, parts, count,
                                               (tp_adapters_method)tp_request_u32(request, TP_KEY_METHOD, 0));
}

static const tp_handler handlers[] = {
    {command_list, 0, TP_OP_READ, TP_ADAPTERS_LIST},
    {command_on_id, TP_HAS(ID), TP_OP_WRITE, TP_ADAPTERS_ACTIVATE},
    {command_deactivate, 0, TP_OP_WRITE, TP_ADAPTERS_DEACTIVATE},
    {command_on_id, TP_HAS(ID), TP_OP_WRITE, TP_ADAPTERS_CONFIRM},
    {command_on_id, TP_HAS(ID), TP_OP_WRITE, TP_ADAPTERS_REVERT},
    {command_on_id, TP_HAS(ID), TP_OP_WRITE, TP_ADAPTERS_DELETE},
    {command_on_id, TP_HAS(ID) | TP_HAS(VERSION), TP_OP_WRITE, TP_ADAPTERS_SAVE},
    {command_on_id, TP_HAS(ID) | TP_HAS(STEP), TP_OP_WRITE, TP_ADAPTERS_CHECKPOINT},
    {command_on_id, TP_HAS(ID), TP_OP_WRITE, TP_ADAPTERS_RESUME},
    {command_on_id, TP_HAS(ID) | TP_HAS(OFF) | TP_HAS(DATA), TP_OP_WRITE, TP_ADAPTERS_UPLOAD},
    {command_uploading, 0, TP_OP_READ, TP_ADAPTERS_UPLOADING},
    {command_on_id, TP_HAS(ID), TP_OP_READ, TP_ADAPTERS_DESCRIBE},
    {command_collect, 0, TP_OP_WRITE, TP_ADAPTERS_COLLECT},
    {command_combine, TP_HAS(IDS) | TP_HAS(WEIGHTS), TP_OP_WRITE, TP_ADAPTERS_COMBINE},
};

const tp_group tp_group_adapters = {
    .group = TP_GROUP_ADAPTERS,
    .count = sizeof handlers / sizeof handlers[0],
    .needs_model = 1,
    .needs_store = 1,
    .handlers = handlers,
};
