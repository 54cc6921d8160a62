#include "tinypeft/tp_frame.h"

#include <string.h>

#include "tinypeft/tp_bytes.h"
#include "tinypeft/tp_crc.h"

#define START_0 0x06u
#define START_1 0x09u
#define CONTINUE_0 0x04u
#define CONTINUE_1 0x14u
#define LINE_FEED 0x0Au
#define CARRIAGE_RETURN 0x0Du
#define CRC_BYTES 2u
#define LENGTH_BYTES 2u
#define LINE_DATA_BYTES ((TP_LINE_MAX - 3u) / 4u * 3u)

enum {
  OUTSIDE,       /* no packet has begun */
  BETWEEN,       /* lines of a packet */
  INSIDE,        /* a line */
  MARK = 4,      /* added to one of these: behind the first byte of a start */
  MARK_MORE = 8, /* of a continuation */
  PLACES = 3
};

/* The digits of base64: characters that follow each other, from the first on. */
typedef struct {
  uint8_t first, count;
} digit_run;

#define DIGITS 64u
static const digit_run runs[] = {{'A', 26}, {'a', 26}, {'0', 10}, {'+', 1}, {'/', 1}};

/* Receiving */

static void give_up(tp_frame_receiver *receiver) {
  if ((receiver->state & PLACES) != OUTSIDE) {
    receiver->dropped++;
  }
  receiver->state = OUTSIDE;
}

static void begin_line(tp_frame_receiver *receiver) {
  receiver->state = INSIDE;
  receiver->line = 2;
  receiver->digits = 0;
  receiver->padding = 0;
}

static void begin_packet(tp_frame_receiver *receiver) {
  give_up(receiver);
  begin_line(receiver);
  receiver->used = 0;
  receiver->expected = LENGTH_BYTES;
}

/* The value of a base64 digit; DIGITS: none. */
static uint32_t digit_value(uint8_t byte) {
  uint32_t value = 0;
  for (const digit_run *run = runs; value < DIGITS; run++) {
    const uint32_t place = (uint32_t)byte - run->first;
    if (place < run->count) {
      return value + place;
    }
    value += run->count;
  }
  return value;
}

/* 0: the packet is longer than it says, or than fits. */
static int store(tp_frame_receiver *receiver, uint8_t byte) {
  if (receiver->used == receiver->expected) {
    return 0;
  }
  receiver->packet[receiver->used++] = byte;
  if (receiver->used == LENGTH_BYTES) {
    const uint32_t length = tp_get_u16be(receiver->packet);
    if (length < TP_MESSAGE_HEADER + CRC_BYTES || length > TP_MESSAGE_MAX + CRC_BYTES) {
      return 0;
    }
    receiver->expected = (uint16_t)(LENGTH_BYTES + length);
  }
  return 1;
}

/* One more character of a line; 0: it does not belong there. */
static int decode(tp_frame_receiver *receiver, uint8_t byte) {
  const uint32_t value = digit_value(byte);
  if (++receiver->line > TP_LINE_MAX - 1u) {
    return 0;
  }
  if (byte == '=') {
    if (receiver->digits < 2) {
      return 0;
    }
    receiver->padding++;
  } else if (value == DIGITS || receiver->padding > 0) {
    return 0;
  }
  receiver->bits = receiver->bits << 6 | value % DIGITS;
  if (++receiver->digits < 4) {
    return 1;
  }
  receiver->digits = 0;
  for (uint32_t i = 0; i < 3u - receiver->padding; i++) {
    if (!store(receiver, (uint8_t)((receiver->bits >> (16u - 8u * i)) & 0xFFu))) {
      return 0;
    }
  }
  return 1;
}

/* The end of a line: the message that is whole now, or NULL. */
static const uint8_t *end_line(tp_frame_receiver *receiver, uint32_t *length) {
  if (receiver->digits != 0) {
    give_up(receiver);
    return NULL;
  }
  receiver->state = BETWEEN;
  if (receiver->used < receiver->expected) {
    return NULL;
  }
  const uint8_t *message = receiver->packet + LENGTH_BYTES;
  *length = (uint32_t)receiver->expected - LENGTH_BYTES - CRC_BYTES;
  if (tp_crc16(message, *length) != tp_get_u16be(message + *length)) {
    give_up(receiver);
    return NULL;
  }
  receiver->state = OUTSIDE;
  receiver->received++;
  return message;
}

void tp_frame_init(tp_frame_receiver *receiver) {
  memset(receiver, 0, sizeof *receiver);
}

const uint8_t *tp_frame_push(tp_frame_receiver *receiver, uint8_t byte, uint32_t *length) {
  const uint8_t mark = receiver->state & (MARK | MARK_MORE);
  receiver->state &= PLACES;
  if (mark == MARK && byte == START_1) {
    begin_packet(receiver);
    return NULL;
  }
  if (mark == MARK_MORE && byte == CONTINUE_1) {
    if (receiver->state == BETWEEN) {
      begin_line(receiver);
    }
    return NULL;
  }
  if (byte == START_0 || byte == CONTINUE_0) {
    if (receiver->state == INSIDE) {
      give_up(receiver);
    }
    receiver->state |= byte == START_0 ? MARK : MARK_MORE;
    return NULL;
  }
  if (receiver->state != INSIDE || byte == CARRIAGE_RETURN) {
    return NULL;
  }
  if (byte == LINE_FEED) {
    return end_line(receiver, length);
  }
  if (!decode(receiver, byte)) {
    give_up(receiver);
  }
  return NULL;
}

tp_message_header tp_message_header_read(const uint8_t *message) {
  const tp_message_header header = {.op = message[0],
                                    .flags = message[1],
                                    .length = (uint16_t)tp_get_u16be(message + 2),
                                    .group = (uint16_t)tp_get_u16be(message + 4),
                                    .sequence = message[6],
                                    .command = message[7]};
  return header;
}

/* Sending */

void tp_message_header_write(uint8_t *message, const tp_message_header *header) {
  message[0] = header->op;
  message[1] = header->flags;
  tp_put_u16be(message + 2, header->length);
  tp_put_u16be(message + 4, header->group);
  message[6] = header->sequence;
  message[7] = header->command;
}

static uint8_t digit(uint32_t value) {
  const digit_run *run = runs;
  while (value >= run->count) {
    value -= run->count;
    run++;
  }
  return (uint8_t)(run->first + value);
}

void tp_frame_send(const uint8_t *message, uint32_t length, tp_write_function write, void *context) {
  uint8_t line[TP_LINE_MAX], ends[LENGTH_BYTES + CRC_BYTES];
  const uint32_t total = LENGTH_BYTES + length + CRC_BYTES;
  tp_put_u16be(ends, length + CRC_BYTES);
  tp_put_u16be(ends + LENGTH_BYTES, tp_crc16(message, length));
  line[0] = START_0;
  line[1] = START_1;
  for (uint32_t at = 0; at < total;) {
    const uint32_t end = at + LINE_DATA_BYTES < total ? at + LINE_DATA_BYTES : total;
    uint32_t used = 2;
    while (at < end) {
      uint32_t bits = 0;
      const uint32_t count = end - at < 3u ? end - at : 3u;
      for (uint32_t i = 0; i < 3; i++, at++) {
        const uint32_t place = at - LENGTH_BYTES, end_place = at < LENGTH_BYTES ? at : at - length;
        const uint8_t byte = i >= count ? 0u : place < length ? message[place] : ends[end_place];
        bits = bits << 8 | byte;
      }
      for (uint32_t i = 0; i < 4; i++) {
        line[used++] = i > count ? (uint8_t)'=' : digit(bits >> (18u - 6u * i) & (DIGITS - 1u));
      }
    }
    line[used++] = LINE_FEED;
    write(context, line, used);
    line[0] = CONTINUE_0;
    line[1] = CONTINUE_1;
  }
}
