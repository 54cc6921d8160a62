#include "tinypeft/tp_response.h"

#include <stddef.h>
#include <string.h>

#define STRING_HEAD_BYTES 3u /* of 16 bits, whatever the length turns out to be */

static void begin_message(tp_response *response) {
  /* One byte less: the break that ends the map always fits. */
  response->writer = (tp_cbor_writer){.data = response->message + TP_MESSAGE_HEADER, .capacity = TP_MAX_PAYLOAD - 1u};
  response->string = 0;
  tp_cbor_write_byte(&response->writer, TP_CBOR_BEGIN_MAP);
}

static void send_message(tp_response *response) {
  response->message[TP_MESSAGE_HEADER + response->writer.used] = TP_CBOR_BREAK;
  response->header.length = (uint16_t)(response->writer.used + 1u);
  tp_message_header_write(response->message, &response->header);
  tp_frame_send(response->message, TP_MESSAGE_HEADER + response->header.length, response->write, response->context);
}

static void write_key(tp_response *response, const char *key) {
  if (key != NULL) {
    tp_cbor_write_string(&response->writer, TP_CBOR_TEXT, key, (uint32_t)strlen(key));
  }
}

void tp_response_init(tp_response *response, tp_write_function write, void *context) {
  memset(response, 0, sizeof *response);
  response->write = write;
  response->context = context;
}

void tp_response_begin(tp_response *response, const tp_message_header *request) {
  response->header = *request;
  response->header.op |= 1u;
  response->header.flags = 0;
  response->stream = 0;
  begin_message(response);
}

void tp_response_integer(tp_response *response, const char *key, int64_t value) {
  write_key(response, key);
  tp_cbor_write_integer(&response->writer, value);
}

void tp_response_u32(tp_response *response, const char *key, uint32_t value) {
  tp_response_integer(response, key, value);
}

void tp_response_float(tp_response *response, const char *key, float value) {
  write_key(response, key);
  tp_cbor_write_float(&response->writer, value);
}

void tp_response_bool(tp_response *response, const char *key, int value) {
  write_key(response, key);
  tp_cbor_write_head(&response->writer, TP_CBOR_SIMPLE, value != 0 ? TP_CBOR_TRUE : TP_CBOR_FALSE);
}

void tp_response_bytes(tp_response *response, const char *key, const void *data, uint32_t length) {
  write_key(response, key);
  tp_cbor_write_string(&response->writer, TP_CBOR_BYTES, data, length);
}

void tp_response_text(tp_response *response, const char *key, const void *text, uint32_t length) {
  write_key(response, key);
  tp_cbor_write_string(&response->writer, TP_CBOR_TEXT, text, length);
}

void tp_response_begin_map(tp_response *response, const char *key) {
  write_key(response, key);
  tp_cbor_write_byte(&response->writer, TP_CBOR_BEGIN_MAP);
}

void tp_response_begin_list(tp_response *response, const char *key) {
  write_key(response, key);
  tp_cbor_write_byte(&response->writer, TP_CBOR_BEGIN_LIST);
}

void tp_response_end(tp_response *response) { tp_cbor_write_byte(&response->writer, TP_CBOR_BREAK); }

uint32_t tp_response_room(const tp_response *response, const char *key) {
  const tp_cbor_writer *writer = &response->writer;
  const uint32_t taken = 1u + (uint32_t)strlen(key) + STRING_HEAD_BYTES;
  const uint32_t left = (uint32_t)writer->capacity - writer->used;
  return writer->full != 0 || left < taken ? 0u : left - taken;
}

void tp_response_begin_string(tp_response *response, const char *key, uint8_t major) {
  const uint8_t head[STRING_HEAD_BYTES] = {(uint8_t)((uint32_t)major << 5 | 25u)};
  write_key(response, key);
  response->string = response->writer.used;
  tp_cbor_write_raw(&response->writer, head, sizeof head);
}

uint32_t tp_response_string_room(const tp_response *response) {
  return response->writer.full != 0 ? 0u : (uint32_t)response->writer.capacity - response->writer.used;
}

void tp_response_fill(tp_response *response, const void *data, uint32_t length) {
  tp_cbor_write_raw(&response->writer, data, length);
}

void tp_response_end_string(tp_response *response) {
  tp_cbor_writer *writer = &response->writer;
  if (response->string != 0 && writer->full == 0) {
    const uint32_t length = (uint32_t)writer->used - response->string - STRING_HEAD_BYTES;
    writer->data[response->string + 1u] = (uint8_t)(length >> 8);
    writer->data[response->string + 2u] = (uint8_t)(length & 0xFFu);
  }
  response->string = 0;
}

static void send_stream(tp_response *response) {
  if (response->stream != 0) {
    tp_response_end_string(response);
    send_message(response);
    response->stream = 0;
  }
}

void tp_response_stream(tp_response *response) {
  send_stream(response);
  response->stream = 1;
  begin_message(response);
  tp_response_bool(response, "more", 1);
}

void tp_response_end_stream(tp_response *response) {
  send_stream(response);
  begin_message(response);
}

void tp_response_finish(tp_response *response, uint32_t group_rc, uint32_t mgmt_rc) {
  if (response->writer.full != 0 && group_rc == 0 && mgmt_rc == 0) {
    mgmt_rc = TP_MGMT_SIZE;
  }
  if (group_rc != 0 || mgmt_rc != 0) {
    tp_response_end_stream(response);
    if (group_rc != 0 && TP_OP_VERSION(response->header.op) > 0) {
      tp_response_begin_map(response, "err");
      tp_response_u32(response, "group", response->header.group);
      tp_response_u32(response, "rc", group_rc);
      tp_response_end(response);
    } else {
      tp_response_u32(response, "rc", mgmt_rc);
    }
  }
  send_message(response);
}
