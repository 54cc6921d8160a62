#include "tinypeft/tp_server.h"

#include <string.h>

#ifdef TP_STORE
#include "tinypeft/tp_adapters.h"
#endif

#define VERSION_2 1u

static const tp_group *find_group(uint16_t number) {
  for (uint32_t i = 0; i < tp_group_count; i++) {
    if (tp_groups[i]->group == number) {
      return tp_groups[i];
    }
  }
  return NULL;
}

static const tp_handler *find_handler(const tp_group *group, const tp_message_header *header) {
  for (uint32_t i = 0; i < group->count; i++) {
    const tp_handler *handler = &group->handlers[i];
    if (handler->command == header->command && handler->op == (header->op & TP_OP_MASK)) {
      return handler;
    }
  }
  return NULL;
}

/* As a handler's result. `length` is the payload's. */
static int dispatch(tp_server *server, const tp_group *group, const tp_message_header *header, const uint8_t *payload,
                    uint32_t length) {
  if (TP_OP_VERSION(header->op) > VERSION_2) {
    return TP_MGMT_TOO_NEW;
  }
  const tp_handler *handler = group != NULL ? find_handler(group, header) : NULL;
  if (handler == NULL) {
    return TP_MGMT_UNSUPPORTED;
  }
  tp_request request;
  if (header->length != length || !tp_request_read(&request, payload, length) ||
      !tp_request_has_all(&request, handler->required)) {
    return TP_MGMT_INVALID;
  }
  if (group->needs_model != 0 && server->fault != TP_OK) {
    return server->fault;
  }
#ifdef TP_STORE
  if (group->needs_store != 0 && server->adapters->store == NULL) {
    return TP_ERR_UNSUPPORTED;
  }
#endif
  return handler->function(server, &request);
}

/* What comes nearest to a status among the errors of any command, for SMP version 1. */
static uint32_t mgmt_rc(tp_status status) {
  switch (status) {
    case TP_ERR_ARGUMENT:
    case TP_ERR_SIZE:
    case TP_ERR_ID:
      return TP_MGMT_INVALID;
    case TP_ERR_COMMAND:
    case TP_ERR_UNSUPPORTED:
      return TP_MGMT_UNSUPPORTED;
    case TP_ERR_TOO_LARGE:
    case TP_ERR_FULL:
      return TP_MGMT_NO_MEMORY;
    case TP_ERR_NOT_FOUND:
      return TP_MGMT_NO_ENTRY;
    case TP_ERR_STATE:
      return TP_MGMT_BAD_STATE;
    case TP_ERR_CHECKSUM:
    case TP_ERR_FORMAT:
    case TP_ERR_HASH:
    case TP_ERR_TRUNCATED:
      return TP_MGMT_CORRUPT;
    default:
      return TP_MGMT_UNKNOWN;
  }
}

static void answer(tp_server *server, const uint8_t *message, uint32_t length) {
  const tp_message_header header = tp_message_header_read(message);
  const uint8_t op = header.op & TP_OP_MASK;
  if (op != TP_OP_READ && op != TP_OP_WRITE) {
    return; /* a response, such as an echo of our own: not to be answered */
  }
  const tp_group *group = find_group(header.group);
  tp_response_begin(&server->response, &header);
  const int result = dispatch(server, group, &header, message + TP_MESSAGE_HEADER, length - TP_MESSAGE_HEADER);
  if (result >= 0) {
    tp_response_finish(&server->response, 0, (uint32_t)result);
  } else {
    const tp_status status = (tp_status)result;
    const uint32_t rc = group != NULL && group->rc != NULL ? group->rc(status) : (uint32_t)-result;
    tp_response_finish(&server->response, rc, mgmt_rc(status));
  }
  if (server->reset != 0) {
    server->reset = 0;
    server->config->reset(server->config->context);
  }
}

void tp_server_init(tp_server *server, const tp_model *model, const tp_server_config *config, tp_status fault) {
  memset(server, 0, sizeof *server);
  server->model = model;
  server->config = config;
  server->fault = fault;
  tp_response_init(&server->response, config->write, config->context);
  tp_frame_init(&server->receiver);
}

void tp_server_receive(tp_server *server, uint8_t byte) {
  uint32_t length = 0;
  const uint8_t *message = tp_frame_push(&server->receiver, byte, &length);
  if (message != NULL) {
    answer(server, message, length);
  }
}
