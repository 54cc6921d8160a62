/* Adapter ids: 1 to 15 characters of a-z 0-9 . _ -, in 16 bytes that are filled up with zeros. */
#ifndef TP_ID_H
#define TP_ID_H

#include <string.h>

#include "tp_types.h"

#define TP_ID_BYTES 16u

/* Characters of a text, at most TP_ID_BYTES: of one that is longer it sees no end. */
static inline uint32_t tp_id_length(const char *text) {
  uint32_t length = 0;
  while (length < TP_ID_BYTES && text[length] != 0) {
    length++;
  }
  return length;
}

/* Whether two ids, or texts of them, are the same. */
int tp_id_same(const char *a, const char *b);

/* Fill 16 bytes with `length` characters of a text: TP_ERR_ID where they are no id. */
tp_status tp_id_set(char id[TP_ID_BYTES], const char *text, uint32_t length);

/* Whether 16 bytes are an id, as they lie on flash and in packages. */
int tp_id_valid(const char *id);

#endif
