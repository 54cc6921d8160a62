#include "tinypeft/tp_delta.h"

#include <string.h>

#include "tinypeft/tp_bytes.h"
#include "tinypeft/tp_sha256.h"

#define PROBABILITY_BITS 11u
#define SHIFT_BITS 3u
#define FIRST_SHIFT 1u
#define LAST_SHIFT 5u
#define TOP (1u << 24)
#define START_BYTES 4u

_Static_assert(sizeof(void *) > 4 || sizeof(tp_delta) <= 600, "the state is small");

static uint32_t smaller(uint32_t a, uint32_t b) { return a < b ? a : b; }

tp_status tp_delta_parse(const uint8_t bytes[TP_DELTA_HEADER_BYTES], tp_delta_header *header) {
  header->old_bytes = tp_get_u32(bytes + 8);
  header->new_bytes = tp_get_u32(bytes + 12);
  memcpy(header->old_digest, bytes + 16, TP_DELTA_DIGEST_BYTES);
  const uint32_t expected = TP_DELTA_FORMAT | TP_DELTA_HEADER_BYTES << 16;
  return memcmp(bytes, "TPDL", 4) == 0 && tp_get_u32(bytes + 4) == expected && header->new_bytes != 0 ? TP_OK
                                                                                                    : TP_ERR_FORMAT;
}

/* Whether all of the old package has the digest that the delta names. */
static tp_status check_old(const tp_delta_header *header, tp_package_reader old, void *context, uint32_t bytes) {
  uint8_t piece[TP_SHA256_BYTES];
  if (bytes != header->old_bytes) {
    return TP_ERR_DELTA;
  }
  tp_sha256 sha;
  tp_sha256_begin(&sha);
  for (uint32_t offset = 0; offset < bytes;) {
    const uint32_t part = smaller(bytes - offset, sizeof piece);
    const tp_status status = old(context, offset, piece, part);
    if (status != TP_OK) {
      return status;
    }
    tp_sha256_update(&sha, piece, part);
    offset += part;
  }
  tp_sha256_finish(&sha, piece);
  return memcmp(piece, header->old_digest, TP_DELTA_DIGEST_BYTES) == 0 ? TP_OK : TP_ERR_DELTA;
}

tp_status tp_delta_begin(tp_delta *delta, const tp_delta_header *header, tp_package_reader old, void *old_context,
                         uint32_t old_bytes, tp_delta_sink sink, void *sink_context) {
  memset(delta, 0, sizeof *delta);
  delta->old = old;
  delta->old_context = old_context;
  delta->sink = sink;
  delta->sink_context = sink_context;
  delta->old_bytes = old_bytes;
  delta->new_bytes = header->new_bytes;
  delta->range = UINT32_MAX;
  delta->wanted = START_BYTES;
  const uint16_t even = 1u << (PROBABILITY_BITS - 1u + SHIFT_BITS) | FIRST_SHIFT;
  for (uint32_t i = 0; i < 256u; i++) {
    delta->changed[i % TP_DELTA_CONTEXTS] = even;
    delta->tree[i] = even;
  }
  return check_old(header, old, old_context, old_bytes);
}

/* The next bit under a model, which is a probability and, in its low bits, the shift by which it moves. */
static uint32_t decode_bit(tp_delta *delta, uint16_t *model) {
  const uint32_t shift = *model & ((1u << SHIFT_BITS) - 1u);
  uint32_t probability = *model >> SHIFT_BITS;
  const uint32_t bound = (delta->range >> PROBABILITY_BITS) * probability;
  const uint32_t bit = delta->code >= bound;
  if (bit) {
    delta->code -= bound;
    delta->range -= bound;
    probability -= probability >> shift;
  } else {
    delta->range = bound;
    probability += ((1u << PROBABILITY_BITS) - probability) >> shift;
  }
  *model = (uint16_t)(probability << SHIFT_BITS | (shift < LAST_SHIFT ? shift + 1u : LAST_SHIFT));
  return bit;
}

/* Read the next piece of the old package, zeros behind its end. */
static tp_status load_piece(tp_delta *delta) {
  const uint32_t left = delta->done < delta->old_bytes ? delta->old_bytes - delta->done : 0;
  const uint32_t length = smaller(left, TP_DELTA_PIECE);
  memset(delta->piece, 0, TP_DELTA_PIECE);
  delta->loaded = 1;
  return length > 0 ? delta->old(delta->old_context, delta->done, delta->piece, length) : TP_OK;
}

/* A byte of the new package is known; a full piece, and the last, go to the sink. */
static tp_status finish_byte(tp_delta *delta, uint32_t changed) {
  const uint32_t in_piece = delta->done % TP_DELTA_PIECE + 1u;
  delta->history = (uint8_t)(((uint32_t)delta->history << 1 | changed) % TP_DELTA_CONTEXTS);
  delta->node = 0;
  delta->done++;
  if (in_piece < TP_DELTA_PIECE && delta->done < delta->new_bytes) {
    return TP_OK;
  }
  delta->loaded = 0;
  return delta->sink(delta->sink_context, delta->piece, in_piece);
}

/* Decode a bit, and what it means. */
static tp_status step(tp_delta *delta) {
  if (delta->node == 0) {
    const uint32_t changed = decode_bit(delta, &delta->changed[delta->history]);
    delta->node = (uint8_t)changed;
    return changed ? TP_OK : finish_byte(delta, 0);
  }
  const uint32_t node = (uint32_t)delta->node << 1 | decode_bit(delta, &delta->tree[delta->node]);
  delta->node = (uint8_t)node;
  if (node < 256u) {
    return TP_OK;
  }
  const uint32_t value = node & 0xFFu; /* 0 is +1, 1 is -1, 2 is +2, ... */
  const uint32_t magnitude = (value >> 1) + 1u;
  uint8_t *byte = &delta->piece[delta->done % TP_DELTA_PIECE];
  *byte = (uint8_t)(value & 1u ? *byte - magnitude : *byte + magnitude);
  return finish_byte(delta, 1);
}

tp_status tp_delta_push(tp_delta *delta, const uint8_t *bytes, uint32_t length) {
  const uint8_t *const end = bytes + length;
  while (delta->done < delta->new_bytes) {
    if (delta->wanted > 0 || delta->range < TOP) {
      if (bytes == end) {
        return TP_OK;
      }
      delta->code = delta->code << 8 | *bytes++;
      if (delta->wanted > 0) {
        delta->wanted--;
      } else {
        delta->range <<= 8;
      }
      continue;
    }
    tp_status status = delta->loaded ? TP_OK : load_piece(delta);
    if (status == TP_OK) {
      status = step(delta);
    }
    if (status != TP_OK) {
      return status;
    }
  }
  return bytes == end ? TP_OK : TP_ERR_SIZE;
}

tp_status tp_delta_finish(const tp_delta *delta) {
  return delta->done == delta->new_bytes ? TP_OK : TP_ERR_TRUNCATED;
}
