/* CBOR (RFC 8949): what SMP's maps need of it, strictly. Nothing recurses, nothing is copied. */
#ifndef TP_CBOR_H
#define TP_CBOR_H

#include <stdint.h>

enum {
  TP_CBOR_UNSIGNED,
  TP_CBOR_NEGATIVE,
  TP_CBOR_BYTES,
  TP_CBOR_TEXT,
  TP_CBOR_ARRAY,
  TP_CBOR_MAP,
  TP_CBOR_TAG,
  TP_CBOR_SIMPLE
};

#define TP_CBOR_INDEFINITE 31u /* `info` of what ends with a break; as TP_CBOR_SIMPLE: the break itself */
#define TP_CBOR_FALSE 20u
#define TP_CBOR_TRUE 21u
#define TP_CBOR_NULL 22u
#define TP_CBOR_HALF 25u
#define TP_CBOR_FLOAT 26u
#define TP_CBOR_DOUBLE 27u

/* How deep arrays and maps may be nested in a value that is skipped. */
#define TP_CBOR_DEPTH 8u

typedef struct {
  const uint8_t *data;
  uint32_t length; /* at most 65000 */
  uint32_t at;     /* the next item */
} tp_cbor_reader;

/* What an item begins with. */
typedef struct {
  uint8_t major;  /* TP_CBOR_* */
  uint8_t info;   /* the head's low 5 bits */
  uint32_t value; /* number, length, count, or bits of a float; -1 - value where major is TP_CBOR_NEGATIVE */
  uint32_t high;  /* its upper 32 bits */
} tp_cbor_head;

/* Each returns 1, or 0 where the data end too early or are not well-formed; the reader is then at no particular place.
 * A definite string must lie within the data: of one, `at` is behind its head, at the first of head->value bytes. */
int tp_cbor_read_head(tp_cbor_reader *reader, tp_cbor_head *head);
/* One whole item, however nested, up to TP_CBOR_DEPTH. That a text is UTF-8 is not checked. */
int tp_cbor_skip(tp_cbor_reader *reader);

/* Whether it is a number of that range; an s32. */
static inline int tp_cbor_is_u32(const tp_cbor_head *head) {
  return head->major == TP_CBOR_UNSIGNED && head->high == 0;
}

static inline int tp_cbor_is_s32(const tp_cbor_head *head) {
  return head->major <= TP_CBOR_NEGATIVE && head->high == 0 && head->value <= INT32_MAX;
}

static inline int32_t tp_cbor_s32(const tp_cbor_head *head) {
  return head->major == TP_CBOR_NEGATIVE ? -1 - (int32_t)head->value : (int32_t)head->value;
}

/* Whether it is a float or an integer, and the nearest float32, ties to even: beyond the largest infinite, below the
 * smallest zero. Integer arithmetic only. */
static inline int tp_cbor_is_float(const tp_cbor_head *head) {
  return head->major <= TP_CBOR_NEGATIVE ||
         (head->major == TP_CBOR_SIMPLE && head->info >= TP_CBOR_HALF && head->info <= TP_CBOR_DOUBLE);
}

float tp_cbor_float(const tp_cbor_head *head);

/* Writing. What does not fit is not written, nor anything after it. */
typedef struct {
  uint8_t *data;
  uint16_t capacity;
  uint16_t used;
  uint8_t full; /* 1: something did not fit */
} tp_cbor_writer;

/* A head in its shortest form. */
void tp_cbor_write_head(tp_cbor_writer *writer, uint8_t major, uint64_t value);
/* Bytes as they are, such as a string's content behind its head. `data` may be NULL where `length` is 0. */
void tp_cbor_write_raw(tp_cbor_writer *writer, const void *data, uint32_t length);
void tp_cbor_write_byte(tp_cbor_writer *writer, uint8_t byte);
void tp_cbor_write_integer(tp_cbor_writer *writer, int64_t value);
void tp_cbor_write_float(tp_cbor_writer *writer, float value);
/* `major`: TP_CBOR_BYTES or TP_CBOR_TEXT. */
void tp_cbor_write_string(tp_cbor_writer *writer, uint8_t major, const void *data, uint32_t length);

#define TP_CBOR_BEGIN_LIST 0x9Fu
#define TP_CBOR_BEGIN_MAP 0xBFu
#define TP_CBOR_BREAK 0xFFu

#endif
