#include "tinypeft/tp_frame.h"

#include <stddef.h>
#include <string.h>

#include "tinypeft/tp_crc.h"

#define START_0 0x06u
#define START_1 0x09u
#define CRC_BYTES 2u

static uint16_t get_u16be(const uint8_t *bytes) { return (uint16_t)(((uint32_t)bytes[0] << 8) | bytes[1]); }

static void put_u16be(uint8_t *bytes, uint16_t value) {
  bytes[0] = (uint8_t)(value >> 8);
  bytes[1] = (uint8_t)(value & 0xFFu);
}

static void drop(tp_frame_receiver *receiver, uint32_t count) {
  receiver->used -= count;
  memmove(receiver->bytes, receiver->bytes + count, receiver->used);
}

/* Bytes from here to the next that may start a frame; at least 1. */
static uint32_t next_start(const tp_frame_receiver *receiver) {
  uint32_t i = 1;
  while (i < receiver->used && receiver->bytes[i] != START_0) {
    i++;
  }
  return i;
}

typedef enum { FRAME_FALSE, FRAME_PARTIAL, FRAME_WHOLE } frame_state;

/* What the buffer, not empty, begins with. `*body` is the length of message and CRC of a whole frame. */
static frame_state examine(const tp_frame_receiver *receiver, uint32_t *body) {
  const uint8_t *bytes = receiver->bytes;
  if (bytes[0] != START_0 || (receiver->used > 1 && bytes[1] != START_1)) {
    return FRAME_FALSE;
  }
  if (receiver->used < TP_FRAME_PREFIX) {
    return FRAME_PARTIAL;
  }
  *body = get_u16be(bytes + 2);
  if (*body < TP_MESSAGE_HEADER + CRC_BYTES || *body > TP_MESSAGE_MAX + CRC_BYTES) {
    return FRAME_FALSE;
  }
  if (receiver->used < TP_FRAME_PREFIX + *body) {
    return FRAME_PARTIAL;
  }
  const uint8_t *message = bytes + TP_FRAME_PREFIX;
  const uint32_t length = *body - CRC_BYTES;
  return tp_crc16(message, length) == get_u16be(message + length) ? FRAME_WHOLE : FRAME_FALSE;
}

void tp_frame_init(tp_frame_receiver *receiver) {
  receiver->used = 0;
  receiver->delivered = 0;
}

void tp_frame_push(tp_frame_receiver *receiver, uint8_t byte) {
  if (receiver->used == TP_FRAME_MAX) {
    tp_frame_init(receiver);
  }
  receiver->bytes[receiver->used] = byte;
  receiver->used++;
}

const uint8_t *tp_frame_next(tp_frame_receiver *receiver, uint32_t *length) {
  if (receiver->delivered > 0) { /* not at every byte: moving nothing takes as long */
    drop(receiver, receiver->delivered);
    receiver->delivered = 0;
  }
  while (receiver->used > 0) {
    uint32_t body = 0;
    const frame_state state = examine(receiver, &body);
    if (state == FRAME_PARTIAL) {
      return NULL;
    }
    if (state == FRAME_WHOLE) {
      receiver->delivered = TP_FRAME_PREFIX + body;
      *length = body - CRC_BYTES;
      return receiver->bytes + TP_FRAME_PREFIX;
    }
    drop(receiver, next_start(receiver));
  }
  return NULL;
}

tp_message_header tp_message_header_read(const uint8_t *message) {
  const tp_message_header header = {.op = message[0],
                                    .flags = message[1],
                                    .length = get_u16be(message + 2),
                                    .group = get_u16be(message + 4),
                                    .sequence = message[6],
                                    .command = message[7]};
  return header;
}

uint32_t tp_frame_seal(uint8_t *frame, const tp_message_header *header) {
  const uint32_t length = TP_MESSAGE_HEADER + header->length;
  uint8_t *message = frame + TP_FRAME_PREFIX;
  frame[0] = START_0;
  frame[1] = START_1;
  put_u16be(frame + 2, (uint16_t)(length + CRC_BYTES));
  message[0] = header->op;
  message[1] = header->flags;
  put_u16be(message + 2, header->length);
  put_u16be(message + 4, header->group);
  message[6] = header->sequence;
  message[7] = header->command;
  put_u16be(message + length, tp_crc16(message, length));
  return TP_FRAME_PREFIX + length + CRC_BYTES;
}
