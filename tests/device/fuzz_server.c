/* Feeds the server random bytes, random requests in right packets, and broken ones; for a build with sanitizers.
 * Argument: the number of rounds. Ends with 0 where the server still answers INFO. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tinypeft/tp_frame.h"
#include "tinypeft/tp_server.h"
#include "tinypeft/tp_twin.h"

#define LINES_MAX (2u * TP_MESSAGE_MAX)

static uint32_t state = 0x9E3779B9u;

static uint32_t random_u32(void) {
  state ^= state << 13;
  state ^= state >> 17;
  state ^= state << 5;
  return state;
}

static uint32_t below(uint32_t bound) { return random_u32() % bound; }

/* Small, large or negative: what a length or an offset may go wrong with. */
static uint32_t edge(void) {
  static const uint32_t edges[] = {0, 1, 4, 12, 16, 2047, 2048, 2049, 0x7FFFFFFFu, 0x80000000u, 0xFFFFFFFFu};
  return below(3) == 0 ? random_u32() : edges[below(sizeof edges / sizeof edges[0])];
}

/* A value of any type; the right one more often than not. */
static void random_value(tp_cbor_writer *writer, uint32_t depth) {
  static uint8_t bytes[64];
  const uint32_t length = below(sizeof bytes);
  switch (below(depth < 10 ? 10 : 8)) {
    case 0:
      tp_cbor_write_integer(writer, (int64_t)((uint64_t)random_u32() << 32 | random_u32()));
      break;
    case 1:
      tp_cbor_write_byte(writer, (uint8_t)(TP_CBOR_SIMPLE << 5 | (TP_CBOR_FALSE + below(3))));
      break;
    case 2:
    case 3:
      tp_cbor_write_string(writer, (uint8_t)(TP_CBOR_BYTES + below(2)), bytes, below(4) == 0 ? 16 : length);
      break;
    case 4:
      tp_cbor_write_float(writer, (float)below(100) / 8.0f);
      break;
    case 8:
    case 9: {
      const int list = below(2) == 0;
      tp_cbor_write_byte(writer, list ? TP_CBOR_BEGIN_LIST : TP_CBOR_BEGIN_MAP);
      for (uint32_t left = (list ? 1u : 2u) * below(4); left > 0; left--) {
        random_value(writer, depth + 1);
      }
      tp_cbor_write_byte(writer, TP_CBOR_BREAK);
      break;
    }
    default:
      tp_cbor_write_integer(writer, below(3) == 0 ? edge() : below(20));
  }
}

/* A known key with its type, mostly within the range of what it is for. */
static void random_pair(tp_cbor_writer *writer, uint32_t key) {
#define NAME(index, name, type) name,
#define TYPE(index, name, type) TP_TYPE_##type,
  static const char *const names[] = {TP_KEY_TABLE(NAME)};
  static const uint8_t types[] = {TP_KEY_TABLE(TYPE)};
  static uint8_t bytes[TP_MAX_PAYLOAD];
  tp_cbor_write_string(writer, TP_CBOR_TEXT, names[key], (uint32_t)strlen(names[key]));
  if (below(200) == 0) {
    random_value(writer, 0);
    return;
  }
  switch (types[key]) {
    case TP_TYPE_BYTES:
    case TP_TYPE_TEXT:
      tp_cbor_write_string(writer, types[key] == TP_TYPE_BYTES ? TP_CBOR_BYTES : TP_CBOR_TEXT, bytes,
                           below(40) == 0 ? below(sizeof bytes) : below(3) == 0 ? 16 : below(20));
      break;
    case TP_TYPE_FLOAT:
      tp_cbor_write_float(writer, (float)below(16) / 8.0f);
      break;
    case TP_TYPE_BOOL:
      tp_cbor_write_head(writer, TP_CBOR_SIMPLE, TP_CBOR_FALSE + below(2));
      break;
    default:
      tp_cbor_write_integer(writer, below(4) == 0 ? edge() & 0x7FFFFFFFu : below(12));
  }
}

typedef struct {
  uint8_t *bytes;
  uint32_t used;
} lines;

static void append(void *context, const uint8_t *data, uint32_t length) {
  lines *to = context;
  memcpy(to->bytes + to->used, data, length);
  to->used += length;
}

/* The lines of a random request; their length. */
static uint32_t random_request(uint8_t *bytes) {
  uint8_t message[TP_MESSAGE_MAX];
  lines to = {bytes, 0};
  tp_cbor_writer writer = {.data = message + TP_MESSAGE_HEADER, .capacity = TP_MAX_PAYLOAD};
  tp_message_header header = {.op = (uint8_t)(below(10) == 0 ? below(256) : 2 * below(2) + 8 * below(2)),
                              .group = (uint16_t)(below(8) == 0 ? below(66) : TP_GROUP_MODEL),
                              .sequence = (uint8_t)below(256),
                              .command = (uint8_t)below(TP_COMMAND_COUNT + 1)};
  tp_cbor_write_byte(&writer, TP_CBOR_BEGIN_MAP);
  const uint32_t share = 1 + below(4); /* of the keys; a key comes twice now and then */
  for (uint32_t key = 0; key < TP_KEY_COUNT; key++) {
    if (below(4) < share) {
      random_pair(&writer, below(200) == 0 ? below(TP_KEY_COUNT) : key);
    }
  }
  tp_cbor_write_byte(&writer, TP_CBOR_BREAK);
  if (below(8) == 0 && writer.used > 0) {
    writer.data[below(writer.used)] = (uint8_t)below(256);
  }
  header.length = (uint16_t)(below(20) == 0 ? below(600) : writer.used);
  tp_message_header_write(message, &header);
  tp_frame_send(message, TP_MESSAGE_HEADER + writer.used, append, &to);
  return to.used;
}

int main(int argc, char **argv) {
  static uint8_t request[LINES_MAX], response[1 << 16];
  const long rounds = argc > 1 ? strtol(argv[1], NULL, 10) : 1000;
  static const uint8_t often[] = {6, 9, 4, 0x14, 10, 13, 'A', '=', '/', 'z'};
  if (tp_twin_init() != TP_OK) {
    return 1;
  }
  uint32_t answered = 0;
  for (long round = 0; round < rounds; round++) {
    uint32_t length = 0;
    const uint32_t kind = below(8);
    if (kind == 0) {
      length = below(TP_MESSAGE_MAX);
      for (uint32_t i = 0; i < length; i++) {
        request[i] = (uint8_t)(below(3) == 0 ? below(256) : often[below(sizeof often)]);
      }
    } else {
      length = random_request(request);
      if (kind == 1) {
        request[below(length)] ^= (uint8_t)(1u << below(8));
      } else if (kind == 2) {
        length = below(length);
      }
    }
    const size_t size = tp_twin_exchange(request, length, response, below(16) == 0 ? below(600) : sizeof response);
    answered += size > 30 ? 1u : 0u; /* more than an error */
  }
  const tp_message_header info = {.op = TP_OP_READ, .group = TP_GROUP_MODEL, .command = TP_COMMAND_INFO};
  uint8_t message[TP_MESSAGE_HEADER];
  lines to = {request, 0};
  tp_message_header_write(message, &info);
  tp_frame_send(message, sizeof message, append, &to);
  const size_t size = tp_twin_exchange(request, to.used, response, sizeof response);
  printf("%u long answers in %ld rounds, then %zu bytes of INFO\n", answered, rounds, size);
  return size > 100 && size < 500 && answered > rounds / 20 ? 0 : 1;
}
