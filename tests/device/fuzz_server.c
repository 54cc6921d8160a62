/* Feeds the server random bytes, random requests in right frames, and broken frames; for a build with sanitizers.
 * Argument: the number of rounds. Ends with 0 where the server still answers INFO. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tinypeft/tp_frame.h"
#include "tinypeft/tp_server.h"
#include "tinypeft/tp_twin.h"

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

/* A frame with a right CRC around a random request; its length. */
static uint32_t random_request(uint8_t *frame) {
  uint8_t *payload = frame + TP_FRAME_PREFIX + TP_MESSAGE_HEADER;
  tp_message_header header = {.op = (uint8_t)(below(10) == 0 ? below(8) : 2 * below(2)),
                              .group = (uint16_t)(below(20) == 0 ? random_u32() & 0xFFFFu : TP_GROUP),
                              .sequence = (uint8_t)below(256),
                              .command = (uint8_t)below(TP_COMMAND_COUNT + 1)};
  static const uint8_t sizes[] = {0, 4, 8, 12, 16, 20, 60};
  header.length = (uint16_t)(below(3) == 0 ? below(TP_MAX_PAYLOAD + 1) : sizes[below(sizeof sizes)]);
  for (uint32_t i = 0; i < header.length; i++) {
    payload[i] = (uint8_t)below(256);
  }
  for (uint32_t i = 0; i + 4 <= header.length && i < 16; i += 4) {
    const uint32_t value = i == 0 ? below(10) : edge();
    memcpy(payload + i, &value, sizeof value);
  }
  return tp_frame_seal(frame, &header);
}

int main(int argc, char **argv) {
  static uint8_t request[2 * TP_FRAME_MAX], response[1 << 16], flush[TP_FRAME_MAX];
  const long rounds = argc > 1 ? strtol(argv[1], NULL, 10) : 1000;
  if (tp_twin_init() != TP_OK) {
    return 1;
  }
  for (long round = 0; round < rounds; round++) {
    uint32_t length = 0;
    const uint32_t kind = below(8);
    if (kind == 0) {
      length = below(TP_FRAME_MAX);
      for (uint32_t i = 0; i < length; i++) {
        request[i] = (uint8_t)(below(3) == 0 ? 6u + 3u * below(2) : below(256));
      }
    } else {
      length = random_request(request);
      if (kind == 1) {
        request[below(length)] ^= (uint8_t)(1u << below(8));
      } else if (kind == 2) {
        length = below(length);
      }
    }
    (void)tp_twin_exchange(request, length, response, below(16) == 0 ? below(600) : sizeof response);
  }
  (void)tp_twin_exchange(flush, sizeof flush, response, sizeof response);
  const tp_message_header info = {.op = TP_OP_READ, .group = TP_GROUP, .command = TP_COMMAND_INFO};
  const size_t size = tp_twin_exchange(request, tp_frame_seal(request, &info), response, sizeof response);
  printf("%zu bytes of INFO after %ld rounds\n", size, rounds);
  return size > 64 && size != TP_TWIN_OVERFLOW ? 0 : 1;
}
