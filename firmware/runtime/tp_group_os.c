/* MCUmgr's OS management: what any SMP client expects of a device. */
#include <string.h>

#include "tinypeft/tp_server.h"

enum { ECHO = 0, RESET = 5, PARAMETERS = 6, APPLICATION = 7 };
enum { RC_UNKNOWN = 1, RC_INVALID_FORMAT = 2 };

static int echo(tp_server *server, const tp_request *request) {
  const tp_span text = tp_request_span(request, TP_KEY_ECHO);
  tp_response_text(&server->response, "r", text.data, text.length);
  return TP_OK;
}

static int reset(tp_server *server, const tp_request *request) {
  (void)request;
  if (server->config->reset == NULL) {
    return TP_MGMT_UNSUPPORTED;
  }
  server->reset = 1;
  return TP_OK;
}

static int parameters(tp_server *server, const tp_request *request) {
  (void)request;
  tp_response_u32(&server->response, "buf_size", TP_MESSAGE_MAX + TP_PACKET_FRAMING);
  tp_response_u32(&server->response, "buf_count", 1);
  return TP_OK;
}

/* Append a field to a text of fields with a space between each, as much of it as fits. */
static void append_field(tp_response *response, const char *field, int first) {
  const char *text = field != NULL ? field : "unknown";
  const uint32_t room = tp_response_string_room(response), length = (uint32_t)strlen(text);
  const uint32_t space = first != 0 || room == 0 ? 0u : 1u;
  tp_response_fill(response, " ", space);
  tp_response_fill(response, text, length < room - space ? length : room - space);
}

static int application(tp_server *server, const tp_request *request) {
  static const char letters[] = "snrvbmpio";
  const tp_server_config *config = server->config;
  const char *const fields[] = {server->model->name, NULL, config->version, config->version, NULL, config->board,
                                config->processor, config->board, "tinypeft"};
  const tp_span format = tp_request_span(request, TP_KEY_FORMAT);
  uint32_t wanted = format.length == 0 ? 1u : 0u;
  for (uint32_t i = 0; i < format.length; i++) {
    const char *letter = memchr(letters, format.data[i], sizeof letters - 1u);
    if (letter == NULL && format.data[i] != 'a') {
      return TP_ERR_ARGUMENT;
    }
    wanted |= letter != NULL ? 1u << (letter - letters) : (1u << (sizeof letters - 1u)) - 1u;
  }
  tp_response_begin_string(&server->response, "output", TP_CBOR_TEXT);
  int first = 1;
  for (uint32_t i = 0; i < sizeof letters - 1u; i++) {
    if ((wanted >> i & 1u) != 0) {
      append_field(&server->response, fields[i], first);
      first = 0;
    }
  }
  tp_response_end_string(&server->response);
  return TP_OK;
}

static uint16_t rc(tp_status status) { return status == TP_ERR_ARGUMENT ? RC_INVALID_FORMAT : RC_UNKNOWN; }

static const tp_handler handlers[] = {
    {echo, TP_HAS(ECHO), TP_OP_WRITE, ECHO},
    {reset, 0, TP_OP_WRITE, RESET},
    {parameters, 0, TP_OP_READ, PARAMETERS},
    {application, 0, TP_OP_READ, APPLICATION},
};

const tp_group tp_group_os = {TP_GROUP_OS, sizeof handlers / sizeof handlers[0], 0, 0, handlers, rc};
