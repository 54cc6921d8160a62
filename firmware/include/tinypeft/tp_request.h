/* The map of a request: checked once, then read by key.
 *
 * Keys may come in any order; those that are not in the table are skipped, whatever they hold; a null counts as absent.
 * A known key that comes twice or holds another type makes the request invalid, as does anything that is truncated,
 * trailing, not well-formed or nested too deeply. Byte strings and texts of known keys are of definite length. */
#ifndef TP_REQUEST_H
#define TP_REQUEST_H

#include "tp_cbor.h"

/* index, name, type: the one table of what commands of all groups take. At most 64 keys, of which the first 16 may be
 * required. FLOAT takes integers too. */
#define TP_KEY_TABLE(X)                      \
  X(DATA, "data", BYTES)                     \
  X(ECHO, "d", TEXT)                         \
  X(EPOCHS, "epochs", U32)                   \
  X(ID, "id", TEXT)                          \
  X(IDS, "ids", TEXT)                        \
  X(LEN, "len", U32)                         \
  X(NAME, "name", TEXT)                      \
  X(OBJECT, "object", U32)                   \
  X(OFF, "off", U32)                         \
  X(RATE, "rate", FLOAT)                     \
  X(SAMPLE, "sample", U32)                   \
  X(SAMPLES, "samples", U32)                 \
  X(SEED, "seed", U32)                       \
  X(STEP, "step", U32)                       \
  X(VERSION, "version", U32)                 \
  X(WEIGHTS, "weights", BYTES)               \
  X(CONFIRM, "confirm", BOOL)                \
  X(DUMP, "dump", U32)                       \
  X(FINAL_FRACTION, "final_fraction", FLOAT) \
  X(FORMAT, "format", TEXT)                  \
  X(FROM, "from", U32)                       \
  X(GUARDS, "guards", U32)                   \
  X(HASH, "hash", BYTES)                     \
  X(HELD_BACK, "held_back", U32)             \
  X(HELD_BACK_SHARE, "held_back_share", U32) \
  X(INPUT, "input", BYTES)                   \
  X(KEEP, "keep", BOOL)                      \
  X(LABEL, "label", S32)                     \
  X(MAX_UNDONE, "max_undone", U32)           \
  X(METHOD, "method", U32)                   \
  X(MIN_GAIN, "min_gain", U32)               \
  X(PATIENCE, "patience", U32)               \
  X(REPLAYED, "replayed", U32)               \
  X(SCHEDULE, "schedule", U32)               \
  X(TOTAL_STEPS, "total_steps", U32)         \
  X(TRACE, "trace", BOOL)                    \
  X(TYPE, "type", TEXT)                      \
  X(WARMUP_STEPS, "warmup_steps", U32)

#define TP_KEY_ENUM(index, name, type) TP_KEY_##index,
typedef enum { TP_KEY_TABLE(TP_KEY_ENUM) TP_KEY_COUNT } tp_key;
_Static_assert(TP_KEY_COUNT <= 64, "one bit a key");

/* A set of the first 16 keys, such as TP_HAS(OBJECT) | TP_HAS(OFF): bit `key`. */
#define TP_HAS(index) (1u << TP_KEY_##index)

typedef enum {
  TP_TYPE_U32,
  TP_TYPE_S32,
  TP_TYPE_FLOAT,
  TP_TYPE_BOOL,
  TP_TYPE_BYTES,
  TP_TYPE_TEXT
} tp_type;

/* A valid map. It points into the message; fields are private. */
typedef struct {
  const uint8_t *payload;
  uint32_t length;
  uint32_t present[2]; /* the set of its known keys, lower half first */
} tp_request;

/* Bytes or a text, which has no 0 at its end. Absent: NULL and 0. */
typedef struct {
  const uint8_t *data;
  uint32_t length;
} tp_span;

/* Check a payload, which must outlive the request; nothing at all counts as an empty map. 1: valid. */
int tp_request_read(tp_request *request, const uint8_t *payload, uint32_t length);

int tp_request_has(const tp_request *request, tp_key key);
int tp_request_has_all(const tp_request *request, uint32_t keys);

/* The value of a key, which must be of this type in the table; `otherwise` where it is absent. */
uint32_t tp_request_u32(const tp_request *request, tp_key key, uint32_t otherwise);
int32_t tp_request_s32(const tp_request *request, tp_key key, int32_t otherwise);
float tp_request_float(const tp_request *request, tp_key key, float otherwise);
int tp_request_bool(const tp_request *request, tp_key key); /* 0 where it is absent */
tp_span tp_request_span(const tp_request *request, tp_key key);

#endif
