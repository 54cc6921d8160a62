/* Training state on flash: "TPCK", its sizes and where it belongs, the adapter, the training struct, a digest. */
#include <string.h>

#include "tinypeft/tp_adapters.h"
#include "tinypeft/tp_bytes.h"
#include "tinypeft/tp_sha256.h"

#define FORMAT 1u
#define PIECE 64u
#define KEY_BYTES 32u

/* The bytes of a header, numbers little-endian: 0 "TPCK", 4 u16 format, 6 u16 header bytes, 8 adapter bytes, 12 training
 * bytes, 16 layout, 20 step, 24 samples summed since the last update, 28 adapter version, 32 fingerprint. */
static void make_header(const tp_model *model, uint8_t *header, uint32_t step, uint32_t version) {
  memcpy(header, "TPCK", 4);
  tp_put_u32(header + 4, FORMAT | TP_CHECKPOINT_HEADER_BYTES << 16);
  tp_put_u32(header + 8, model->adapter_bytes);
  tp_put_u32(header + 12, model->training_bytes);
  tp_put_u32(header + 16, model->package_info->layout);
  tp_put_u32(header + 20, step);
  tp_put_u32(header + 24, model->pending != NULL ? (uint32_t)*model->pending(model->self) : 0u);
  tp_put_u32(header + 28, version);
  memcpy(header + 32, model->fingerprint, sizeof model->fingerprint);
}

/* SHA-256 or, with a key, HMAC-SHA-256 of what is added. */
typedef struct {
  tp_sha256 hash;
  uint8_t key[KEY_BYTES];
  int keyed;
} seal;

static tp_status seal_begin(seal *s, const tp_security *security) {
  s->keyed = security != NULL && security->key_derive != NULL;
  if (!s->keyed) {
    tp_sha256_begin(&s->hash);
    return TP_OK;
  }
  const tp_status status = security->key_derive(security->context, "tinypeft checkpoint", s->key, sizeof s->key);
  if (status == TP_OK) {
    tp_hmac_sha256_begin(&s->hash, s->key, sizeof s->key);
  }
  return status;
}

static void seal_end(seal *s, uint8_t digest[TP_DIGEST_BYTES]) {
  if (s->keyed) {
    tp_hmac_sha256_finish(&s->hash, s->key, sizeof s->key, digest);
  } else {
    tp_sha256_finish(&s->hash, digest);
  }
}

static tp_status write(tp_store *store, seal *s, const void *data, uint32_t length) {
  tp_sha256_update(&s->hash, data, length);
  return tp_store_append(store, data, length);
}

tp_status tp_adapters_checkpoint(tp_adapters *adapters, const char *id, uint32_t step) {
  const tp_model *model = adapters->model;
  tp_store *store = adapters->store;
  uint8_t header[TP_CHECKPOINT_HEADER_BYTES], digest[TP_DIGEST_BYTES];
  seal s;
  if (store == NULL || model->training_bytes == 0) {
    return TP_ERR_UNSUPPORTED;
  }
  if (adapters->serving == TP_ADAPTERS_BASE) {
    return TP_ERR_STATE;
  }
  tp_status status = model->prepare_training(model->self);
  if (status == TP_OK) {
    status = seal_begin(&s, adapters->security);
  }
  if (status == TP_OK) {
    status = tp_store_begin(store, id, TP_STORE_CHECKPOINT, TP_CHECKPOINT_BYTES(model->adapter_bytes, model->training_bytes));
  }
  if (status != TP_OK) {
    return status;
  }
  make_header(model, header, step, adapters->residents[adapters->serving].version);
  status = write(store, &s, header, sizeof header);
  if (status == TP_OK) {
    status = write(store, &s, model->adapter(model->self), model->adapter_bytes);
  }
  if (status == TP_OK) {
    status = write(store, &s, model->training(model->self), model->training_bytes);
  }
  if (status == TP_OK) {
    seal_end(&s, digest);
    status = tp_store_append(store, digest, sizeof digest);
  }
  if (status == TP_OK) {
    status = tp_store_commit(store, step);
  }
  if (status != TP_OK) {
    tp_store_abort(store);
  }
  return status;
}

/* Whether all of a checkpoint is as it was written. */
static tp_status check(const tp_adapters *adapters, const tp_store_entry *entry, uint32_t bytes) {
  uint8_t piece[PIECE], digest[TP_DIGEST_BYTES];
  seal s;
  tp_status status = seal_begin(&s, adapters->security);
  for (uint32_t done = 0; done < bytes && status == TP_OK;) {
    const uint32_t length = bytes - done < PIECE ? bytes - done : PIECE;
    status = tp_store_read(adapters->store, entry, TP_STORE_CHECKPOINT, done, piece, length);
    if (status == TP_OK) {
      tp_sha256_update(&s.hash, piece, length);
    }
    done += length;
  }
  if (status != TP_OK) {
    return status;
  }
  seal_end(&s, digest);
  status = tp_store_read(adapters->store, entry, TP_STORE_CHECKPOINT, bytes, piece, TP_DIGEST_BYTES);
  if (status != TP_OK) {
    return status;
  }
  uint8_t difference = 0; /* all bytes are compared, so that the time tells nothing of a key */
  for (uint32_t i = 0; i < TP_DIGEST_BYTES; i++) {
    difference |= (uint8_t)(piece[i] ^ digest[i]);
  }
  return difference == 0 ? TP_OK : s.keyed ? TP_ERR_SIGNATURE : TP_ERR_CHECKSUM;
}

tp_status tp_adapters_resume(tp_adapters *adapters, const char *id, uint32_t *step) {
  const tp_model *model = adapters->model;
  const tp_store *store = adapters->store;
  const tp_store_entry *entry = store != NULL ? tp_store_find(store, id) : NULL;
  uint8_t found[TP_CHECKPOINT_HEADER_BYTES], expected[TP_CHECKPOINT_HEADER_BYTES];
  if (store == NULL || model->training_bytes == 0) {
    return TP_ERR_UNSUPPORTED;
  }
  if (entry == NULL || entry->slot[TP_STORE_CHECKPOINT] == TP_STORE_NO_SLOT) {
    return TP_ERR_NOT_FOUND;
  }
  const uint32_t bytes = TP_CHECKPOINT_HEADER_BYTES + model->adapter_bytes + model->training_bytes;
  if (entry->bytes[TP_STORE_CHECKPOINT] != bytes + TP_DIGEST_BYTES) {
    return TP_ERR_LAYOUT;
  }
  tp_status status = tp_store_read(store, entry, TP_STORE_CHECKPOINT, 0, found, sizeof found);
  if (status != TP_OK) {
    return status;
  }
  make_header(model, expected, 0, 0);
  if (memcmp(found, expected, 20) != 0 || memcmp(found + 32, expected + 32, sizeof model->fingerprint) != 0) {
    return TP_ERR_LAYOUT;
  }
  status = check(adapters, entry, bytes);
  if (status == TP_OK) {
    status = tp_adapters_write(adapters);
  }
  if (status == TP_OK) {
    status = model->prepare_training(model->self); /* so that the masters count as this adapter's */
  }
  if (status == TP_OK) {
    status = tp_store_read(store, entry, TP_STORE_CHECKPOINT, sizeof found, model->adapter(model->self), model->adapter_bytes);
  }
  if (status == TP_OK) {
    status = tp_store_read(store, entry, TP_STORE_CHECKPOINT, TP_CHECKPOINT_HEADER_BYTES + model->adapter_bytes,
                           model->training(model->self), model->training_bytes);
  }
  if (status != TP_OK) {
    return status;
  }
  if (model->pending != NULL) {
    *model->pending(model->self) = (int32_t)tp_get_u32(found + 24);
  }
  tp_resident *resident = &adapters->residents[adapters->serving];
  memcpy(resident->id, entry->id, sizeof resident->id);
  resident->version = tp_get_u32(found + 28);
  *step = tp_get_u32(found + 20);
  return TP_OK;
}
