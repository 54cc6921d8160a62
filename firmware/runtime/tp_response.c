#include "tinypeft/tp_response.h"

#include <string.h>

#define STATUS_BYTES 4u

uint32_t tp_get_u32(const uint8_t *bytes) {
  return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

int32_t tp_get_s32(const uint8_t *bytes) {
  const uint32_t bits = tp_get_u32(bytes);
  int32_t value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

void tp_put_u32(uint8_t *bytes, uint32_t value) {
  bytes[0] = (uint8_t)(value & 0xFFu);
  bytes[1] = (uint8_t)((value >> 8) & 0xFFu);
  bytes[2] = (uint8_t)((value >> 16) & 0xFFu);
  bytes[3] = (uint8_t)(value >> 24);
}

static uint8_t *payload_of(tp_response *response) {
  return response->frame + TP_FRAME_PREFIX + TP_MESSAGE_HEADER;
}

static void send_frame(tp_response *response, uint8_t flags) {
  response->header.flags = flags;
  response->write(response->context, response->frame, tp_frame_seal(response->frame, &response->header));
}

static void send_stream(tp_response *response) {
  if (response->stream != 0) {
    send_frame(response, TP_FLAG_MORE);
    response->stream = 0;
  }
}

void tp_response_init(tp_response *response, tp_write_function write, void *context) {
  memset(response, 0, sizeof *response);
  response->write = write;
  response->context = context;
}

void tp_response_begin(tp_response *response, const tp_message_header *request) {
  response->header = *request;
  response->header.op = (uint8_t)(request->op + 1u);
  response->header.length = STATUS_BYTES;
  response->stream = 0;
}

uint32_t tp_response_room(const tp_response *response) { return TP_MAX_PAYLOAD - response->header.length; }

void tp_response_append(tp_response *response, const void *data, uint32_t length) {
  if (length > 0) {
    memcpy(payload_of(response) + response->header.length, data, length);
    response->header.length = (uint16_t)(response->header.length + length);
  }
}

void tp_response_append_u32(tp_response *response, uint32_t value) {
  uint8_t bytes[4];
  tp_put_u32(bytes, value);
  tp_response_append(response, bytes, sizeof bytes);
}

void tp_response_append_s64(tp_response *response, int64_t value) {
  tp_response_append_u32(response, (uint32_t)((uint64_t)value & 0xFFFFFFFFu));
  tp_response_append_u32(response, (uint32_t)((uint64_t)value >> 32));
}

void tp_response_append_text(tp_response *response, const char *text) {
  const size_t length = strlen(text);
  const uint32_t room = tp_response_room(response);
  tp_response_append(response, text, length < room ? (uint32_t)length : room);
}

void tp_response_stream(tp_response *response, tp_stream kind) {
  send_stream(response);
  response->stream = (uint32_t)kind;
  response->header.length = 0;
  tp_response_append_u32(response, (uint32_t)kind);
}

/* Append what fits of data[done..length); returns the new `done`. */
static uint32_t append_part(tp_response *response, const void *data, uint32_t done, uint32_t length) {
  const uint32_t room = tp_response_room(response);
  const uint32_t part = length - done < room ? length - done : room;
  if (part > 0) {
    tp_response_append(response, (const uint8_t *)data + done, part);
  }
  return done + part;
}

void tp_response_stream_data(tp_response *response, const void *data, uint32_t length) {
  uint32_t done = 0;
  while (done < length) {
    tp_response_stream(response, TP_STREAM_DATA);
    done = append_part(response, data, done, length);
  }
}

void tp_response_stream_dump(tp_response *response, const void *data, uint32_t length, int32_t exponent) {
  uint32_t done = 0;
  do {
    tp_response_stream(response, TP_STREAM_DUMP);
    tp_response_append_u32(response, (uint32_t)exponent);
    done = append_part(response, data, done, length);
  } while (done < length);
}

void tp_response_end_stream(tp_response *response) {
  send_stream(response);
  response->header.length = STATUS_BYTES;
}

void tp_response_finish(tp_response *response, tp_status status) {
  if (status != TP_OK) {
    tp_response_end_stream(response);
    tp_response_append_text(response, tp_status_text(status));
  }
  tp_put_u32(payload_of(response), (uint32_t)status);
  send_frame(response, 0);
}
