/* Bytes as a delta against any old package: within bounds, the same in pieces as in one; what was encoded comes out. */
#include <string.h>

#include "harness.h"

#define OLD_BYTES_MAX 400u
#define NEW_BYTES_MAX 512u

enum { HEADER = 1, READER_FAILS = 2, SINK_IS_SMALL = 4, ENCODED = 8 };

typedef struct {
  uint8_t *bytes;
  uint32_t used, capacity, of;
} sink;

static tp_status take(void *context, const void *data, uint32_t length) {
  sink *to = context;
  require(length > 0 && length <= TP_DELTA_PIECE, "a piece of at most TP_DELTA_PIECE");
  require(to->used % TP_DELTA_PIECE == 0 && length <= to->of - to->used, "no more than new_bytes, in whole pieces");
  if (length > to->capacity - to->used) {
    return TP_ERR_TOO_LARGE;
  }
  memcpy(to->bytes + to->used, data, length);
  to->used += length;
  return TP_OK;
}

/* Decode what follows the header, `step` bytes at a time. */
static tp_status decode(const uint8_t *delta, uint32_t bytes, uint32_t step, strict_bytes *old, sink *to) {
  tp_delta state;
  tp_delta_header header;
  memset(&state, 0xA5, sizeof state);
  tp_status status = tp_delta_parse(delta, &header);
  if (status == TP_OK) {
    to->of = header.new_bytes;
    status = tp_delta_begin(&state, &header, read_strictly, old, old->length, take, to);
  }
  for (uint32_t at = TP_DELTA_HEADER_BYTES; at < bytes && status == TP_OK; at += step) {
    status = tp_delta_push(&state, delta + at, bytes - at < step ? bytes - at : step);
  }
  if (status == TP_OK) {
    status = tp_delta_finish(&state);
    require((status == TP_OK) == (to->used == header.new_bytes), "it is finished where all bytes have come");
  }
  return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static guarded olds, news, agains;
  static uint8_t buffer[4096], other[NEW_BYTES_MAX];
  fuzz_input input = {data, (uint32_t)size};
  const uint32_t mode = take_u8(&input);
  const uint32_t step = 1u + take_u8(&input) % 70u;
  uint32_t old_bytes = take_u16(&input) % (OLD_BYTES_MAX + 1u);
  const uint32_t new_bytes = 1u + take_u16(&input) % NEW_BYTES_MAX;
  const uint8_t *from = take_bytes(&input, &old_bytes);
  uint8_t *old = guard(&olds, old_bytes);
  if (old_bytes > 0) {
    memcpy(old, from, old_bytes);
  }
  uint32_t rest = sizeof buffer - TP_DELTA_HEADER_BYTES, bytes = 0;
  from = take_bytes(&input, &rest);
  if ((mode & ENCODED) != 0) { /* what is left is the change of each byte */
    memset(other, 0, sizeof other);
    for (uint32_t i = 0; i < new_bytes; i++) {
      other[i] = (uint8_t)((i < old_bytes ? old[i] : 0u) + (i < rest ? from[i] : 0u));
    }
    bytes = make_delta(old, old_bytes, other, new_bytes, buffer, sizeof buffer);
  } else if ((mode & HEADER) != 0) {
    put_delta_header(buffer, old, old_bytes, new_bytes);
    memcpy(buffer + TP_DELTA_HEADER_BYTES, from, rest);
    bytes = TP_DELTA_HEADER_BYTES + rest;
  } else if (rest > 0) {
    memcpy(buffer, from, rest);
    bytes = rest;
  }
  if (bytes < TP_DELTA_HEADER_BYTES) {
    return 0;
  }
  const uint32_t capacity = (mode & SINK_IS_SMALL) != 0 ? 200u : NEW_BYTES_MAX;
  strict_bytes reader = {old, old_bytes, (mode & READER_FAILS) != 0 ? new_bytes : UINT32_MAX};
  sink pieces = {.bytes = guard(&news, capacity - PLANTED_BYTES), .capacity = capacity};
  sink whole = {.bytes = guard(&agains, capacity), .capacity = capacity};
  const tp_status status = decode(buffer, bytes, step, &reader, &pieces);
  const tp_status again = decode(buffer, bytes, sizeof buffer, &reader, &whole);
  require(status == again && pieces.used == whole.used, "it does not matter how a delta arrives");
  require(memcmp(pieces.bytes, whole.bytes, whole.used) == 0, "it gives the same bytes again");
  if ((mode & (ENCODED | READER_FAILS | SINK_IS_SMALL)) == ENCODED) {
    require(status == TP_OK && memcmp(whole.bytes, other, new_bytes) == 0, "a right delta gives the new package");
  }
  return 0;
}
