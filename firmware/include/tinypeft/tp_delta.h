/* A new package from an old one and a delta between them, as it arrives. firmware/STORAGE.md says how it is coded.
 *
 * offset size
 *  0      4   "TPDL"
 *  4      2   format version, 1
 *  6      2   header bytes, 24
 *  8      4   bytes of the old package
 * 12      4   bytes of the new package
 * 16      8   the first bytes of the SHA-256 of all of the old package
 * 24          the coded difference
 */
#ifndef TP_DELTA_H
#define TP_DELTA_H

#include "tp_package.h"

#define TP_DELTA_FORMAT 1u
#define TP_DELTA_HEADER_BYTES 24u
#define TP_DELTA_DIGEST_BYTES 8u
#define TP_DELTA_CONTEXTS 4u
#define TP_DELTA_PIECE 32u

typedef struct {
  uint32_t old_bytes, new_bytes;
  uint8_t old_digest[TP_DELTA_DIGEST_BYTES];
} tp_delta_header;

/* Takes the next `length` bytes of the new package. */
typedef tp_status (*tp_delta_sink)(void *context, const void *data, uint32_t length);

/* Decoding under way; the caller owns it, its fields are private. */
typedef struct {
  tp_package_reader old;
  void *old_context;
  tp_delta_sink sink;
  void *sink_context;
  uint32_t old_bytes, new_bytes;
  uint32_t done;              /* bytes of the new package so far */
  uint32_t range, code;       /* of the range decoder */
  uint8_t wanted;             /* bytes of the delta that it begins with */
  uint8_t history;            /* whether the last bytes were changed, a bit each */
  uint8_t node;               /* where in the tree of a change; 0: whether there is one comes next */
  uint8_t loaded;             /* the piece of the old package is in `piece` */
  uint16_t changed[TP_DELTA_CONTEXTS], tree[256];
  uint8_t piece[TP_DELTA_PIECE]; /* old bytes, each replaced by the new one */
} tp_delta;

/* The numbers of a header; TP_ERR_FORMAT where it is none. What it says is not to be trusted: new_bytes may be anything
 * but 0. */
tp_status tp_delta_parse(const uint8_t bytes[TP_DELTA_HEADER_BYTES], tp_delta_header *header);

/* Get ready for what follows the header. All of the old package is read once: TP_ERR_DELTA where it is not the one that
 * the delta was made for. `old` is read from, and `sink` written to, by the calls that follow. */
tp_status tp_delta_begin(tp_delta *delta, const tp_delta_header *header, tp_package_reader old, void *old_context,
                         uint32_t old_bytes, tp_delta_sink sink, void *sink_context);

/* Decode the next bytes of the delta. At most new_bytes reach the sink, in order, in pieces of at most TP_DELTA_PIECE.
 * Errors: TP_ERR_SIZE for bytes behind the delta's end; what the reader or the sink return. After one, begin anew.
 * A delta that is damaged gives a damaged package: tp_package_verify() tells. */
tp_status tp_delta_push(tp_delta *delta, const uint8_t *bytes, uint32_t length);

/* TP_OK where the new package is complete, else TP_ERR_TRUNCATED. */
tp_status tp_delta_finish(const tp_delta *delta);

#endif
