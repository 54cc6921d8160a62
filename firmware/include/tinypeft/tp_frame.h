/* Framing on a byte stream.
 *
 *   frame   = 0x06 0x09 | u16be length of message + 2 | message | u16be CRC-16/XMODEM of the message
 *   message = u8 op | u8 flags | u16be payload length | u16be group | u8 sequence | u8 command | payload
 *
 * The message is an SMP (MCUmgr) message. Whatever is between frames, such as text, is skipped. */
#ifndef TP_FRAME_H
#define TP_FRAME_H

#include <stdint.h>

/* Largest payload in bytes, both ways. The host learns it from INFO. 128 to 4096. */
#ifndef TP_MAX_PAYLOAD
#define TP_MAX_PAYLOAD 512
#endif
_Static_assert(TP_MAX_PAYLOAD >= 128 && TP_MAX_PAYLOAD <= 4096, "TP_MAX_PAYLOAD is out of range");

#define TP_FRAME_PREFIX 4u   /* start bytes and length */
#define TP_MESSAGE_HEADER 8u /* op to command */
#define TP_MESSAGE_MAX (TP_MESSAGE_HEADER + TP_MAX_PAYLOAD)
#define TP_FRAME_MAX (TP_FRAME_PREFIX + TP_MESSAGE_MAX + 2u)

#define TP_OP_READ 0u
#define TP_OP_READ_RESPONSE 1u
#define TP_OP_WRITE 2u
#define TP_OP_WRITE_RESPONSE 3u
#define TP_FLAG_MORE 1u /* another response frame to the same request follows */

typedef struct {
  uint8_t op;
  uint8_t flags;
  uint16_t length; /* of the payload */
  uint16_t group;
  uint8_t sequence; /* a response repeats its request's */
  uint8_t command;
} tp_message_header;

/* The bytes since the last place where a frame may begin. A frame that turns out false gives back all but its first
 * byte, so that a true frame inside or behind it is still found. */
typedef struct {
  uint8_t bytes[TP_FRAME_MAX];
  uint32_t used;
  uint32_t delivered; /* bytes of the frame that tp_frame_next() returned last */
} tp_frame_receiver;

void tp_frame_init(tp_frame_receiver *receiver);

/* Take one byte. Call tp_frame_next() until it returns NULL before the next push. */
void tp_frame_push(tp_frame_receiver *receiver, uint8_t byte);

/* The next whole message with a right CRC, `*length` bytes (TP_MESSAGE_HEADER to TP_MESSAGE_MAX), or NULL.
 * Valid until the next call of either function. */
const uint8_t *tp_frame_next(tp_frame_receiver *receiver, uint32_t *length);

/* Read the header at the start of a message of at least TP_MESSAGE_HEADER bytes. */
tp_message_header tp_message_header_read(const uint8_t *message);

/* Make a frame, in place: the payload, header->length bytes, is already at frame + TP_FRAME_PREFIX +
 * TP_MESSAGE_HEADER. Returns the length of the frame. header->length <= TP_MAX_PAYLOAD. */
uint32_t tp_frame_seal(uint8_t *frame, const tp_message_header *header);

#endif
