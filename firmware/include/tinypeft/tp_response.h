/* The frames that answer one request: any number of stream frames, then the final response. Payload bytes are
 * little-endian. */
#ifndef TP_RESPONSE_H
#define TP_RESPONSE_H

#include "tinypeft/tp_frame.h"
#include "tinypeft/tp_types.h"

/* What a stream frame carries; its payload begins with it as a u32. tp_server.h says what follows. */
typedef enum { TP_STREAM_DATA = 1, TP_STREAM_TRACE, TP_STREAM_DUMP, TP_STREAM_FIT } tp_stream;

/* Sends one frame; returns when `data` may be reused. */
typedef void (*tp_write_function)(void *context, const uint8_t *data, uint32_t length);

/* One frame at a time, filled in place. The caller owns it; fields are private. */
typedef struct {
  tp_write_function write;
  void *context;
  tp_message_header header; /* header.length: the payload bytes so far */
  uint32_t stream;          /* tp_stream of the frame being filled; 0: the final response */
  uint8_t frame[TP_FRAME_MAX];
} tp_response;

void tp_response_init(tp_response *response, tp_write_function write, void *context);

/* Begin the final response to `request`, with room for the status in front. */
void tp_response_begin(tp_response *response, const tp_message_header *request);

/* Bytes that the frame being filled still takes. */
uint32_t tp_response_room(const tp_response *response);

/* Append to the frame being filled: length <= tp_response_room(). `data` may be NULL where `length` is 0. */
void tp_response_append(tp_response *response, const void *data, uint32_t length);
void tp_response_append_u32(tp_response *response, uint32_t value);
void tp_response_append_s64(tp_response *response, int64_t value);

/* Append a text without its 0, as much of it as there is room for. */
void tp_response_append_text(tp_response *response, const char *text);

/* Drop what has been appended to the final response, or send the stream frame being filled, and begin a stream frame. */
void tp_response_stream(tp_response *response, tp_stream kind);

/* Stream all bytes as TP_STREAM_DATA, or as TP_STREAM_DUMP with `exponent`. */
void tp_response_stream_data(tp_response *response, const void *data, uint32_t length);
void tp_response_stream_dump(tp_response *response, const void *data, uint32_t length, int32_t exponent);

/* Send the stream frame being filled, if any, and begin the final response anew. */
void tp_response_end_stream(tp_response *response);

/* Send the final response with `status`; an error's text takes the place of what was appended. */
void tp_response_finish(tp_response *response, tp_status status);

/* Numbers inside payloads */
uint32_t tp_get_u32(const uint8_t *bytes);
int32_t tp_get_s32(const uint8_t *bytes);
void tp_put_u32(uint8_t *bytes, uint32_t value);

#endif
