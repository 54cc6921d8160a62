/* SMP (MCUmgr) over a serial line.
 *
 *   message = u8 op | u8 flags | u16be payload length | u16be group | u8 sequence | u8 command | payload
 *   packet  = u16be length of message + 2 | message | u16be CRC-16/XMODEM of the message
 *
 * A packet travels as base64 in lines: 0x06 0x09 base64 0x0A first, 0x04 0x14 base64 0x0A while it lasts, each of at
 * most TP_LINE_MAX bytes and of whole groups of four characters. Whatever is between lines, such as text, is skipped.
 * A payload is one CBOR map (tp_cbor.h). */
#ifndef TP_FRAME_H
#define TP_FRAME_H

#include <stdint.h>

/* Largest payload in bytes, both ways. The host learns it from the MCUmgr parameters and from INFO. 256 to 4096. */
#ifndef TP_MAX_PAYLOAD
#define TP_MAX_PAYLOAD 512
#endif
_Static_assert(TP_MAX_PAYLOAD >= 256 && TP_MAX_PAYLOAD <= 4096, "TP_MAX_PAYLOAD is out of range");

#define TP_LINE_MAX 127u     /* of a line, start bytes and line feed included; a carriage return is not counted */
#define TP_MESSAGE_HEADER 8u /* op to command */
#define TP_MESSAGE_MAX (TP_MESSAGE_HEADER + TP_MAX_PAYLOAD)
#define TP_PACKET_FRAMING 4u /* length and CRC */

/* Bits 0 to 2 of `op`; bits 3 and 4 are the version: 0 is SMP version 1, 1 is version 2. */
#define TP_OP_READ 0u
#define TP_OP_READ_RESPONSE 1u
#define TP_OP_WRITE 2u
#define TP_OP_WRITE_RESPONSE 3u
#define TP_OP_MASK 7u
#define TP_OP_VERSION(op) (((op) >> 3) & 3u)

typedef struct {
  uint8_t op; /* with the version */
  uint8_t flags;
  uint16_t length; /* of the payload */
  uint16_t group;
  uint8_t sequence; /* a response repeats its request's */
  uint8_t command;
} tp_message_header;

/* Decodes lines as their bytes arrive. A start of a packet gives up the packet before it, wherever it comes. What is no
 * whole packet with a right CRC is dropped and counted. The caller owns it; only the counters are public. */
typedef struct {
  uint32_t received; /* messages */
  uint32_t dropped;  /* packets that began and were given up */
  uint16_t used;     /* bytes of `packet` */
  uint16_t expected; /* of them, once the length is known */
  uint8_t state;
  uint8_t line;      /* bytes of this line */
  uint8_t digits;    /* base64 digits of this group */
  uint8_t padding;   /* '=' in this line */
  uint32_t bits;     /* of this group */
  uint8_t packet[TP_MESSAGE_MAX + TP_PACKET_FRAMING];
} tp_frame_receiver;

void tp_frame_init(tp_frame_receiver *receiver);

/* Take one byte. The message that it completes, `*length` bytes (TP_MESSAGE_HEADER to TP_MESSAGE_MAX), or NULL.
 * Valid until the next call. */
const uint8_t *tp_frame_push(tp_frame_receiver *receiver, uint8_t byte, uint32_t *length);

/* Read or write the header at the start of a message of at least TP_MESSAGE_HEADER bytes. */
tp_message_header tp_message_header_read(const uint8_t *message);
void tp_message_header_write(uint8_t *message, const tp_message_header *header);

/* Takes `length` bytes to send; returns when `data` may be reused. */
typedef void (*tp_write_function)(void *context, const uint8_t *data, uint32_t length);

/* Send a message of at most TP_MESSAGE_MAX bytes: one `write` a line. */
void tp_frame_send(const uint8_t *message, uint32_t length, tp_write_function write, void *context);

#endif
