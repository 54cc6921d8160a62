/* Packages and deltas as they arrive: the header is checked with its last byte, all of it with the last byte of all. */
#include "tp_adapters_memory.h"

#include <string.h>

#include "tinypeft/tp_crc.h"
#include "tinypeft/tp_id.h"

#define MAGIC_BYTES 4u

static tp_status give_up(tp_adapters *adapters, tp_status status) {
  tp_store_abort(adapters->store);
  memset(&adapters->upload, 0, sizeof adapters->upload);
  return status;
}

/* Whether a package may be what `id` becomes. */
static tp_status check_identity(const tp_adapters *adapters, const tp_package_header *header) {
  uint32_t least;
  if (memcmp(header->identity.id, adapters->upload.id, TP_ID_BYTES) != 0) {
    return TP_ERR_IDENTITY;
  }
  const tp_status status = tp_adapters_least_counter(adapters, adapters->upload.id, &least);
  if (status != TP_OK) {
    return status;
  }
  return header->identity.counter < least ? TP_ERR_ROLLBACK : TP_OK;
}

/* The head of a package: what is wrong with it is told before the rest is sent. */
static tp_status begin_package(tp_adapters *adapters) {
  tp_package_header header;
  tp_status status = tp_package_parse(adapters->upload.head, &header);
  if (status == TP_OK) {
    status = tp_package_fits(adapters->model->package_info, &header);
  }
  if (status == TP_OK) {
    status = check_identity(adapters, &header);
  }
  if (status == TP_OK && header.package_bytes != adapters->upload.of) {
    status = header.package_bytes > adapters->upload.of ? TP_ERR_TRUNCATED : TP_ERR_SIZE;
  }
  if (status == TP_OK) {
    status = tp_store_begin(adapters->store, adapters->upload.id, TP_STORE_CANDIDATE, adapters->upload.of);
  }
  return status != TP_OK ? status : tp_store_append(adapters->store, adapters->upload.head, sizeof adapters->upload.head);
}

/* What of the old package a delta asks for. It is looked up anew each time: entries move, and where another package has
 * taken its place, the new one's checksums tell. */
static tp_status read_old(void *context, uint32_t offset, void *data, uint32_t length) {
  const tp_adapters *adapters = context;
  const tp_store_entry *entry = tp_store_find(adapters->store, adapters->upload.id);
  return tp_store_read(adapters->store, entry, (tp_store_part)adapters->upload.part, offset, data, length);
}

static tp_status append_new(void *context, const void *data, uint32_t length) {
  return tp_store_append(context, data, length);
}

/* The head of a delta, to the candidate or to what is confirmed. */
static tp_status begin_delta(tp_adapters *adapters) {
  const tp_store_entry *entry = tp_store_find(adapters->store, adapters->upload.id);
  tp_delta_header header;
  tp_status status = tp_delta_parse(adapters->upload.head, &header);
  if (status != TP_OK) {
    return status;
  }
  status = TP_ERR_DELTA;
  for (uint32_t part = TP_STORE_CONFIRMED; part <= TP_STORE_CANDIDATE && status == TP_ERR_DELTA; part++) {
    if (entry != NULL && entry->slot[part] != TP_STORE_NO_SLOT) {
      adapters->upload.part = (uint8_t)part;
      status = tp_delta_begin(&adapters->upload.delta, &header, read_old, adapters, entry->bytes[part], append_new,
                              adapters->store);
    }
  }
  return status != TP_OK
             ? status
             : tp_store_begin(adapters->store, adapters->upload.id, TP_STORE_CANDIDATE, header.new_bytes);
}

/* Begin as soon as a header is there. */
static tp_status check_head(tp_adapters *adapters) {
  const uint32_t received = adapters->upload.received;
  if (received == MAGIC_BYTES) {
    adapters->upload.is_delta = memcmp(adapters->upload.head, "TPDL", MAGIC_BYTES) == 0;
  }
  const uint32_t header = adapters->upload.is_delta ? TP_DELTA_HEADER_BYTES : TP_PACKAGE_HEADER_BYTES;
  if (received < MAGIC_BYTES || received < header) {
    return TP_OK;
  }
  adapters->upload.checked = 1;
  return adapters->upload.is_delta ? begin_delta(adapters) : begin_package(adapters);
}

static tp_status finish(tp_adapters *adapters) {
  tp_store *store = adapters->store;
  tp_package_header header;
  uint32_t bytes;
  if (!adapters->upload.checked ||
      (adapters->upload.is_delta && tp_delta_finish(&adapters->upload.delta) != TP_OK)) {
    return TP_ERR_TRUNCATED;
  }
  tp_store_uploaded(store, &bytes);
  tp_status status = tp_package_verify(adapters->model->package_info, tp_store_read_upload, store, bytes,
                                       adapters->security, &header);
  if (status == TP_OK) {
    status = check_identity(adapters, &header);
  }
  if (status == TP_OK) {
    status = tp_store_commit(store, header.identity.version);
  }
  if (status == TP_OK) {
    tp_adapters_replaced(adapters, adapters->upload.id);
    memset(&adapters->upload, 0, sizeof adapters->upload);
  }
  return status;
}

tp_status tp_adapters_upload_begin(tp_adapters *adapters, const char *id, uint32_t bytes) {
  if (adapters->store == NULL || adapters->model->package_info == NULL) {
    return TP_ERR_UNSUPPORTED;
  }
  give_up(adapters, TP_OK);
  adapters->upload.of = bytes;
  tp_status status = tp_id_set(adapters->upload.id, id, tp_id_length(id));
  if (status == TP_OK && bytes > adapters->store->config.slot_bytes) {
    status = TP_ERR_TOO_LARGE;
  } else if (status == TP_OK && bytes == 0) {
    status = TP_ERR_TRUNCATED;
  }
  return status == TP_OK ? TP_OK : give_up(adapters, status);
}

tp_status tp_adapters_upload(tp_adapters *adapters, const void *data, uint32_t length) {
  const uint8_t *bytes = data;
  if (adapters->store == NULL || adapters->upload.of == 0) {
    return TP_ERR_STATE;
  }
  if (length > adapters->upload.of - adapters->upload.received) {
    return give_up(adapters, TP_ERR_TOO_LARGE);
  }
  adapters->upload.crc = tp_crc32(adapters->upload.crc, data, length);
  uint32_t done = 0;
  tp_status status = TP_OK;
  while (!adapters->upload.checked && done < length && status == TP_OK) {
    adapters->upload.head[adapters->upload.received++] = bytes[done++];
    status = check_head(adapters);
  }
  if (status == TP_OK && done < length) {
    adapters->upload.received += length - done;
    status = adapters->upload.is_delta ? tp_delta_push(&adapters->upload.delta, bytes + done, length - done)
                                       : tp_store_append(adapters->store, bytes + done, length - done);
  }
  if (status == TP_OK && adapters->upload.received == adapters->upload.of) {
    status = finish(adapters);
  }
  return status == TP_OK ? TP_OK : give_up(adapters, status);
}

void tp_adapters_upload_abort(tp_adapters *adapters) { give_up(adapters, TP_OK); }

const char *tp_adapters_uploading(const tp_adapters *adapters, uint32_t *received, uint32_t *of, uint32_t *crc) {
  *received = adapters->upload.received;
  *of = adapters->upload.of;
  *crc = adapters->upload.crc;
  return adapters->upload.of > 0 ? adapters->upload.id : NULL;
}
