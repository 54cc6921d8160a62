/* The adapters of a model: which are in memory, which one serves, and their way between memory and store.
 *
 * Switching changes a pointer of the model, between two runs: what is resident is not copied. What is not is loaded from
 * the store in place of what was used least recently, never of what serves; training that was not saved is given up last.
 * Without a store there are only adapters in memory.
 *
 * Threads and interrupts: no function may run while another of the same tp_adapters, its store or its model does. An
 * interrupt may call none of them: it sets a flag, and the loop that runs the model switches between two inferences. */
#ifndef TP_ADAPTERS_H
#define TP_ADAPTERS_H

#include "tp_delta.h"
#include "tp_id.h"
#include "tp_model.h"
#include "tp_package.h"
#include "tp_store.h"

/* How many adapters there is memory for; the generated code says so. */
#ifndef TP_RESIDENT
#define TP_RESIDENT 2
#endif
_Static_assert(TP_RESIDENT >= 1 && TP_RESIDENT <= 32, "TP_RESIDENT is out of range");

#define TP_ADAPTERS_BASE 0xFFFFFFFFu /* `serving`: the base model */

/* An adapter in memory. */
typedef struct {
  char id[TP_ID_BYTES]; /* "": it has no name, or the memory is free */
  uint32_t version;
  uint32_t used;   /* when it last began to serve */
  uint8_t part;    /* tp_store_part that it is equal to; TP_STORE_PARTS: of none, such as a fresh one */
  uint8_t changed; /* trained, written or loaded by hand since */
} tp_resident;

/* The caller owns it; fields are private. */
typedef struct tp_adapters {
  const tp_model *model;
  tp_store *store; /* NULL: there is none */
  const tp_security *security;
  uint32_t serving; /* of residents, or TP_ADAPTERS_BASE */
  uint32_t clock;
  tp_resident residents[TP_RESIDENT];
  struct {
    uint8_t checked, is_delta;
    uint8_t part;          /* that a delta changes */
    uint32_t received, of; /* bytes; of what is sent, which may be a delta */
    uint32_t crc;          /* of what was received */
    char id[TP_ID_BYTES];
    union {
      uint8_t head[TP_PACKAGE_HEADER_BYTES]; /* until it has been checked */
      tp_delta delta;
    };
  } upload;
} tp_adapters;

/* What a package that is stored, or an adapter in memory, is. */
typedef struct {
  tp_package_header header;
  uint8_t digest[TP_DIGEST_BYTES];
} tp_adapters_package;

/* Begin with the adapter in the first memory, as the model was started. `store` has been mounted. What the store says is
 * active then serves; where that cannot be loaded, the base model does and the status says why. */
tp_status tp_adapters_init(tp_adapters *adapters, const tp_model *model, tp_store *store, const tp_security *security);

/* Let the adapter `id` serve, until the next reset; NULL: the base model. TP_ERR_NOT_FOUND; where loading fails, what
 * served goes on, or with one memory alone the base model. */
tp_status tp_adapters_use(tp_adapters *adapters, const char *id);

/* The same, also after every reset: see tp_store_activate(). Writes to flash only where that changes something. */
tp_status tp_adapters_activate(tp_adapters *adapters, const char *id);

/* The candidate of `id` takes the place of what was confirmed. */
tp_status tp_adapters_confirm(tp_adapters *adapters, const char *id);

/* Give up the candidate, or all of `id`. Where it serves, what was confirmed, or the base model, serves instead. */
tp_status tp_adapters_revert(tp_adapters *adapters, const char *id);
tp_status tp_adapters_delete(tp_adapters *adapters, const char *id);

/* Receive a package, or a delta to what `id` has, of `bytes` bytes, in pieces. The header is checked as soon as it is
 * there, all of it with the last piece, which makes it the candidate of `id`. Any error gives up the upload: nothing else
 * changes. Errors: those of tp_package_verify(), tp_store_begin() and tp_store_commit(), TP_ERR_IDENTITY where the package names
 * another id, TP_ERR_ROLLBACK below the security counter of `id` or the platform's, TP_ERR_DELTA. */
tp_status tp_adapters_upload_begin(tp_adapters *adapters, const char *id, uint32_t bytes);
tp_status tp_adapters_upload(tp_adapters *adapters, const void *data, uint32_t length);
void tp_adapters_upload_abort(tp_adapters *adapters);

/* How much of which upload has been received, and its CRC-32: a host whose bytes have the same goes on behind them.
 * NULL where there is none. */
const char *tp_adapters_uploading(const tp_adapters *adapters, uint32_t *received, uint32_t *of, uint32_t *crc);

/* The candidate of `id` is another now. What was and serves goes on, as no part of the store. */
void tp_adapters_replaced(tp_adapters *adapters, const char *id);

/* Header and digest of a part of `id`. */
tp_status tp_adapters_describe(const tp_adapters *adapters, const tp_store_entry *entry, tp_store_part part,
                               tp_adapters_package *package);

/* Make the adapter that serves a candidate of `id`, as a package of `version`, written by way of the arena. */
tp_status tp_adapters_save(tp_adapters *adapters, const char *id, uint32_t version);

/* Check a package in memory, such as one in the arena, and let it serve without a name. */
tp_status tp_adapters_load(tp_adapters *adapters, const uint8_t *package, uint32_t bytes);

/* Memory for an adapter that is to be written or reset: what serves or, under the base model, that of
 * what was used least recently, which then serves without a name. To be called before that; afterwards it is changed. */
tp_status tp_adapters_write(tp_adapters *adapters);

/* What serves is about to be trained: its masters are made ready, and it differs from what is stored. TP_ERR_STATE under the base model: call it before training. */
tp_status tp_adapters_train(tp_adapters *adapters);

/* Keep all that training needs to go on at the next step, as the checkpoint of `id`, after `step` steps; and go on from
 * there: the adapter then serves, under the name `id`. Errors of resuming: TP_ERR_NOT_FOUND, TP_ERR_LAYOUT of another
 * model's, TP_ERR_CHECKSUM, with a key TP_ERR_SIGNATURE. */
tp_status tp_adapters_checkpoint(tp_adapters *adapters, const char *id, uint32_t step);
tp_status tp_adapters_resume(tp_adapters *adapters, const char *id, uint32_t *step);

/* An adapter of a weighted sum. */
typedef struct {
  char id[TP_ID_BYTES];
  float weight; /* within +-TP_WEIGHT_LIMIT */
} tp_adapters_part;

#define TP_WEIGHT_LIMIT 1048576.0f

/* LINEAR: A' = sum sign(w) sqrt|w| A and B' = sum sqrt|w| B of a LoRA, as PEFT defines it: their product has cross terms.
 * CAT: the rows of A one behind the other, beside them the columns of w B: their product is the weighted sum.
 * Both: all else that is trained becomes fresh + sum w (it - fresh), `fresh` being what a fresh adapter starts from. */
typedef enum { TP_ADAPTERS_LINEAR, TP_ADAPTERS_CAT } tp_adapters_method;

/* Sum stored adapters, each as it would serve, into one that then serves without a name. They are read one after the other
 * into the memory of what was used least recently; the sums take 4 bytes a master of the arena. On an error what served
 * goes on. TP_ERR_UNSUPPORTED without a store, with one memory alone or for kinds that have no sum, TP_ERR_ARGUMENT for
 * no part, a weight or a method out of range, TP_ERR_SIZE where the arena is too small, TP_ERR_NOT_FOUND, TP_ERR_RANK
 * where the ranks of a layer are more together than its own. */
tp_status tp_adapters_combine(tp_adapters *adapters, const tp_adapters_part *parts, uint32_t count,
                              tp_adapters_method method);

/* The largest object that a store must hold: a signed package or a checkpoint. */
#define TP_CHECKPOINT_HEADER_BYTES 64u
#define TP_CHECKPOINT_BYTES(adapter_bytes, training_bytes) \
  (TP_CHECKPOINT_HEADER_BYTES + (adapter_bytes) + (training_bytes) + TP_DIGEST_BYTES)
#define TP_SIGNED_PACKAGE_BYTES(adapter_bytes) ((adapter_bytes) + TP_PACKAGE_OVERHEAD_BYTES + TP_SIGNATURE_BYTES)

#endif
