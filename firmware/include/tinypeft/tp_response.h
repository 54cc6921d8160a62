/* The messages that answer one request: any number of progress messages, then the final one. Each holds one map; that
 * of a progress message begins with "more": true. */
#ifndef TP_RESPONSE_H
#define TP_RESPONSE_H

#include "tinypeft/tp_cbor.h"
#include "tinypeft/tp_frame.h"

/* What MCUmgr calls MGMT_ERR_*: errors of any command, beside those of its group. */
enum {
  TP_MGMT_UNKNOWN = 1,
  TP_MGMT_NO_MEMORY = 2,
  TP_MGMT_INVALID = 3,
  TP_MGMT_NO_ENTRY = 5,
  TP_MGMT_BAD_STATE = 6,
  TP_MGMT_SIZE = 7,
  TP_MGMT_UNSUPPORTED = 8,
  TP_MGMT_CORRUPT = 9,
  TP_MGMT_TOO_NEW = 13
};

/* One message at a time. The caller owns it; fields are private, but for `header` to handlers. */
typedef struct {
  tp_write_function write;
  void *context;
  tp_message_header header; /* of the responses */
  tp_cbor_writer writer;
  uint16_t string; /* where the head of the string being filled is; 0: none */
  uint8_t stream;  /* 1: a progress message is being filled */
  uint8_t message[TP_MESSAGE_MAX];
} tp_response;

void tp_response_init(tp_response *response, tp_write_function write, void *context);

/* Begin the final response to `request`. */
void tp_response_begin(tp_response *response, const tp_message_header *request);

/* Append to the map being filled; inside a list `key` is NULL. What does not fit makes the final response an error
 * (TP_MGMT_SIZE); a progress message is cut. `data` may be NULL where `length` is 0. */
void tp_response_u32(tp_response *response, const char *key, uint32_t value);
void tp_response_integer(tp_response *response, const char *key, int64_t value);
void tp_response_float(tp_response *response, const char *key, float value);
void tp_response_bool(tp_response *response, const char *key, int value);
void tp_response_bytes(tp_response *response, const char *key, const void *data, uint32_t length);
void tp_response_text(tp_response *response, const char *key, const void *text, uint32_t length);

/* A map or a list as a value, until tp_response_end(). */
void tp_response_begin_map(tp_response *response, const char *key);
void tp_response_begin_list(tp_response *response, const char *key);
void tp_response_end(tp_response *response);

/* How long bytes or a text under `key` may be to fit still. */
uint32_t tp_response_room(const tp_response *response, const char *key);

/* Bytes or a text (`major` of tp_cbor.h) piece by piece: begun, filled with what there is still room for, ended. */
void tp_response_begin_string(tp_response *response, const char *key, uint8_t major);
uint32_t tp_response_string_room(const tp_response *response);
void tp_response_fill(tp_response *response, const void *data, uint32_t length);
void tp_response_end_string(tp_response *response);

/* Begin a progress message: drops what has been appended to the final response, sends the one being filled. */
void tp_response_stream(tp_response *response);

/* Send the progress message being filled, if any, and begin the final response anew. */
void tp_response_end_stream(tp_response *response);

/* Send the final response: what was appended. Or an error in its place: {"err": {"group", "rc"}} in SMP version 2 where
 * `group_rc` is not 0, else {"rc": mgmt_rc}. */
void tp_response_finish(tp_response *response, uint32_t group_rc, uint32_t mgmt_rc);

#endif
