#include "tinypeft/tp_server.h"

#include <string.h>

#include "tinypeft/tp_count.h"
#include "tinypeft/tp_crc.h"
#include "tinypeft/tp_server_fit.h"

#define STATUS_BYTES 4u
#define RUN_BYTES 8u
#define TRACE_RECORD_BYTES 12u
#define INFO_FIXED_BYTES (STATUS_BYTES + 13u * 4u + 32u)
_Static_assert(INFO_FIXED_BYTES < TP_MAX_PAYLOAD, "INFO must fit a payload");

/* Runs: what calls the model and may be traced */

static void trace_output(void *context, uint32_t index, const void *data, uint32_t bytes, int32_t exponent) {
  tp_server *server = context;
  tp_response *response = &server->response;
  if (server->trace != 0) {
    uint8_t exponent_bytes[4];
    tp_put_u32(exponent_bytes, (uint32_t)exponent);
    if (response->stream != (uint32_t)TP_STREAM_TRACE || tp_response_room(response) < TRACE_RECORD_BYTES) {
      tp_response_stream(response, TP_STREAM_TRACE);
    }
    tp_response_append_u32(response, index);
    tp_response_append_u32(response, bytes);
    tp_response_append_u32(response, tp_crc32(tp_crc32(0, data, bytes), exponent_bytes, sizeof exponent_bytes));
  }
  if (server->dump >= 0 && index == (uint32_t)server->dump) {
    tp_response_stream_dump(response, data, bytes, exponent);
  }
}

static tp_status run_begin(tp_server *server, const uint8_t *run) {
  const tp_model *model = server->model;
  server->trace = tp_get_u32(run);
  server->dump = tp_get_s32(run + 4);
  if (server->dump < -1) {
    return TP_ERR_ARGUMENT;
  }
  if (server->trace != 0 || server->dump >= 0) {
    if (model->set_trace == NULL) {
      return TP_ERR_UNSUPPORTED;
    }
    model->set_trace(model->self, trace_output, server);
  }
  return TP_OK;
}

static tp_status run_end(tp_server *server, tp_status status) {
  const tp_model *model = server->model;
  if (server->trace != 0 || server->dump >= 0) {
    model->set_trace(model->self, NULL, NULL);
  }
  tp_response_end_stream(&server->response);
  return status;
}

#ifdef TP_LATENTS
/* The latents of so many samples find room. */
static uint32_t latent_room(const tp_model *model) { return model->samples > 0 ? model->samples : 1u; }
#endif

/* Objects */

typedef struct {
  uint8_t *data;
  uint32_t bytes;
} object_range;

/* `length` bytes from `offset` of an object. TP_ERR_COMMAND: no such object; TP_ERR_UNSUPPORTED: empty here. */
static tp_status object_find(const tp_model *model, uint32_t object, uint32_t offset, uint32_t length,
                             object_range *range) {
  void *(*locate)(void *) = NULL;
  uint32_t bytes = 0;
  switch (object) {
    case TP_OBJECT_INPUT:
      locate = model->input;
      bytes = model->input_bytes;
      break;
    case TP_OBJECT_OUTPUT:
      locate = model->output;
      bytes = model->output_bytes;
      break;
    case TP_OBJECT_LOGITS:
      locate = model->logits;
      bytes = model->logits_bytes;
      break;
    case TP_OBJECT_ADAPTER:
      locate = model->adapter;
      bytes = model->adapter_bytes;
      break;
    case TP_OBJECT_TRAINING:
      locate = model->training;
      bytes = model->training_bytes;
      break;
    case TP_OBJECT_STAGING:
      locate = model->arena;
      bytes = model->arena_bytes;
      break;
    case TP_OBJECT_TARGET:
      locate = model->target;
      bytes = model->target_bytes;
      break;
    case TP_OBJECT_SAMPLES:
      locate = model->store;
      bytes = model->samples * model->sample_bytes;
      break;
#ifdef TP_LATENTS
    case TP_OBJECT_LATENTS:
      locate = model->latents;
      bytes = latent_room(model) * model->latent_bytes;
      break;
#endif
    default:
      return TP_ERR_COMMAND;
  }
  if (locate == NULL || bytes == 0) {
    return TP_ERR_UNSUPPORTED;
  }
  if (offset > bytes || length > bytes - offset) {
    return TP_ERR_ARGUMENT;
  }
  range->data = (uint8_t *)locate(model->self) + offset;
  range->bytes = length;
  return TP_OK;
}

/* Commands. Each appends what follows the status; the length of `request` has been checked. */

static tp_status command_info(tp_server *server, const uint8_t *request, uint32_t length) {
  (void)request;
  (void)length;
  const tp_model *model = server->model;
  tp_response_append_u32(&server->response, TP_PROTOCOL_VERSION);
  tp_response_append_u32(&server->response, TP_MAX_PAYLOAD);
  tp_response_append_u32(&server->response, model->input_bytes);
  tp_response_append_u32(&server->response, model->output_bytes);
  tp_response_append_u32(&server->response, model->logits_bytes);
  tp_response_append_u32(&server->response, model->adapter_bytes);
  tp_response_append_u32(&server->response, model->training_bytes);
  tp_response_append_u32(&server->response, model->package_bytes);
  tp_response_append_u32(&server->response, model->arena_bytes);
  tp_response_append_u32(&server->response, model->target_bytes);
  tp_response_append_u32(&server->response, model->classes);
  tp_response_append_u32(&server->response, model->samples);
  tp_response_append_u32(&server->response, model->sample_bytes);
  tp_response_append(&server->response, model->fingerprint, sizeof model->fingerprint);
  tp_response_append_text(&server->response, model->name);
  return TP_OK;
}

static tp_status command_write(tp_server *server, const uint8_t *request, uint32_t length) {
  const uint32_t object = tp_get_u32(request);
  if (object == TP_OBJECT_OUTPUT || object == TP_OBJECT_LOGITS) {
    return TP_ERR_ARGUMENT;
  }
  object_range range;
  const tp_status status = object_find(server->model, object, tp_get_u32(request + 4), length - 8u, &range);
  if (status != TP_OK) {
    return status;
  }
  memcpy(range.data, request + 8, range.bytes);
  return TP_OK;
}

static tp_status command_read(tp_server *server, const uint8_t *request, uint32_t length) {
  (void)length;
  object_range range;
  const tp_status status =
      object_find(server->model, tp_get_u32(request), tp_get_u32(request + 4), tp_get_u32(request + 8), &range);
  if (status != TP_OK) {
    return status;
  }
  tp_response_stream_data(&server->response, range.data, range.bytes);
  tp_response_end_stream(&server->response);
  return TP_OK;
}

static tp_status command_infer(tp_server *server, const uint8_t *request, uint32_t length) {
  (void)length;
  const tp_model *model = server->model;
  tp_status status = run_begin(server, request);
  if (status != TP_OK) {
    return status;
  }
  TP_COUNT_BEGIN();
  status = model->forward(model->self);
  TP_COUNT_END();
  return run_end(server, status);
}

static int label_in_range(const tp_model *model, int32_t label) {
  return label >= 0 && (model->logits_bytes == 0 || (uint32_t)label < model->logits_bytes / sizeof(int32_t));
}

static void append_masters_sane(tp_server *server) {
  const tp_model *model = server->model;
  tp_response_append_u32(&server->response, model->masters_sane(model->self) != 0 ? 1u : 0u);
}

typedef tp_status (*step_function)(const tp_model *model, const uint8_t *latents, int32_t label, float learning_rate,
                                   float *loss);

static tp_status step_from_input(const tp_model *model, const uint8_t *latents, int32_t label, float learning_rate,
                                 float *loss) {
  (void)latents;
  return model->train_step(model->self, label, learning_rate, loss);
}

/* `request`: a label, a learning rate and a run. */
static tp_status train(tp_server *server, const uint8_t *request, step_function step, const uint8_t *latents) {
  const tp_model *model = server->model;
  const int32_t label = tp_get_s32(request);
  float learning_rate = 0.0f;
  float loss = 0.0f;
  if (model->train_step == NULL || model->training_bytes == 0) {
    return TP_ERR_UNSUPPORTED;
  }
  if (!label_in_range(model, label)) {
    return TP_ERR_ARGUMENT;
  }
  tp_status status = tp_server_learning_rate(request + 4, &learning_rate);
  if (status != TP_OK) {
    return status;
  }
  status = run_begin(server, request + 8);
  if (status != TP_OK) {
    return status;
  }
  TP_COUNT_BEGIN();
  status = step(model, latents, label, learning_rate, &loss);
  TP_COUNT_END();
  status = run_end(server, status);
  uint32_t loss_bits;
  memcpy(&loss_bits, &loss, sizeof loss_bits);
  tp_response_append_u32(&server->response, loss_bits);
  append_masters_sane(server);
  return status;
}

static tp_status command_train_step(tp_server *server, const uint8_t *request, uint32_t length) {
  (void)length;
  return train(server, request, step_from_input, NULL);
}

static tp_status command_update(tp_server *server, const uint8_t *request, uint32_t length) {
  (void)length;
  const tp_model *model = server->model;
  float learning_rate = 0.0f;
  if (model->update == NULL || model->training_bytes == 0) {
    return TP_ERR_UNSUPPORTED;
  }
  tp_status status = tp_server_learning_rate(request, &learning_rate);
  if (status != TP_OK) {
    return status;
  }
  status = run_begin(server, request + 4);
  if (status != TP_OK) {
    return status;
  }
  TP_COUNT_BEGIN();
  status = model->update(model->self, learning_rate);
  TP_COUNT_END();
  status = run_end(server, status);
  append_masters_sane(server);
  return status;
}

static tp_status command_reset_adapter(tp_server *server, const uint8_t *request, uint32_t length) {
  (void)length;
  const tp_model *model = server->model;
  if (model->reset_adapter == NULL) {
    return TP_ERR_UNSUPPORTED;
  }
  const tp_status status = run_begin(server, request + 4);
  return status != TP_OK ? status : run_end(server, model->reset_adapter(model->self, tp_get_u32(request)));
}

static tp_status command_requantize(tp_server *server, const uint8_t *request, uint32_t length) {
  (void)length;
  const tp_model *model = server->model;
  if (model->requantize == NULL || model->training_bytes == 0) {
    return TP_ERR_UNSUPPORTED;
  }
  const tp_status status = run_begin(server, request);
  return status != TP_OK ? status : run_end(server, model->requantize(model->self));
}

static tp_status command_export_adapter(tp_server *server, const uint8_t *request, uint32_t length) {
  (void)request;
  (void)length;
  const tp_model *model = server->model;
  if (model->export_adapter == NULL || model->package_bytes == 0) {
    return TP_ERR_UNSUPPORTED;
  }
  tp_response_append_u32(&server->response, model->package_bytes);
  return model->export_adapter(model->self, model->arena(model->self), model->arena_bytes);
}

static tp_status command_load_adapter(tp_server *server, const uint8_t *request, uint32_t length) {
  (void)length;
  const tp_model *model = server->model;
  const uint32_t bytes = tp_get_u32(request);
  if (model->load_adapter == NULL || model->package_bytes == 0) {
    return TP_ERR_UNSUPPORTED;
  }
  if (bytes > model->arena_bytes) {
    return TP_ERR_SIZE;
  }
  return model->load_adapter(model->self, model->arena(model->self), bytes);
}

static tp_status command_stats(tp_server *server, const uint8_t *request, uint32_t length) {
  (void)request;
  (void)length;
  const tp_model *model = server->model;
  const tp_server_config *config = &server->config;
  tp_response_append_u32(&server->response, config->stack_bytes != NULL ? config->stack_bytes(config->context) : 0u);
  tp_response_append_u32(&server->response, config->stack_high_water != NULL ? config->stack_high_water(config->context) : 0u);
  tp_response_append_u32(&server->response, model->guards_intact(model->self) != 0 ? 1u : 0u);
  return TP_OK;
}

static tp_status command_evaluate(tp_server *server, const uint8_t *request, uint32_t length) {
  (void)length;
  const tp_model *model = server->model;
  const int32_t label = tp_get_s32(request);
  int32_t loss = 0, right = 0;
  if (model->evaluate == NULL || model->training_bytes == 0) {
    return TP_ERR_UNSUPPORTED;
  }
  if (!label_in_range(model, label)) {
    return TP_ERR_ARGUMENT;
  }
  tp_status status = run_begin(server, request + 4);
  if (status != TP_OK) {
    return status;
  }
  TP_COUNT_BEGIN();
  status = model->evaluate(model->self, label, &loss, &right);
  TP_COUNT_END();
  status = run_end(server, status);
  tp_response_append_u32(&server->response, (uint32_t)loss);
  tp_response_append_u32(&server->response, (uint32_t)right);
  return status;
}

static tp_status command_fit(tp_server *server, const uint8_t *request, uint32_t length) {
  const tp_model *model = server->model;
  return model->fit != NULL && model->samples > 0 ? model->fit(server, request, length) : TP_ERR_UNSUPPORTED;
}

#ifdef TP_LATENTS
static tp_status command_encode(tp_server *server, const uint8_t *request, uint32_t length) {
  (void)length;
  const tp_model *model = server->model;
  const uint32_t sample = tp_get_u32(request);
  if (sample >= latent_room(model)) {
    return TP_ERR_ARGUMENT;
  }
  tp_status status = run_begin(server, request + 4);
  if (status != TP_OK) {
    return status;
  }
  TP_COUNT_BEGIN();
  status = model->encode(model->self, tp_server_latents(model, sample));
  TP_COUNT_END();
  status = run_end(server, status);
  tp_response_append_u32(&server->response, model->latent_bytes);
  return status;
}

static tp_status step_from_latents(const tp_model *model, const uint8_t *latents, int32_t label, float learning_rate,
                                   float *loss) {
  return model->train_latents(model->self, latents, label, learning_rate, loss);
}

static tp_status command_train_latents(tp_server *server, const uint8_t *request, uint32_t length) {
  (void)length;
  const uint32_t sample = tp_get_u32(request);
  if (sample >= latent_room(server->model)) {
    return TP_ERR_ARGUMENT;
  }
  return train(server, request + 4, step_from_latents, tp_server_latents(server->model, sample));
}

#define COMMANDS TP_COMMAND_COUNT
#else
#define COMMANDS TP_COMMAND_ENCODE
#endif

typedef struct {
  tp_status (*function)(tp_server *server, const uint8_t *request, uint32_t length);
  uint8_t op;
  uint8_t bytes;      /* of the request */
  uint8_t open_ended; /* `bytes` or more */
} command_entry;

static const command_entry commands[COMMANDS] = {
    [TP_COMMAND_INFO] = {command_info, TP_OP_READ, 0, 0},
    [TP_COMMAND_WRITE] = {command_write, TP_OP_WRITE, 8, 1},
    [TP_COMMAND_READ] = {command_read, TP_OP_READ, 12, 0},
    [TP_COMMAND_INFER] = {command_infer, TP_OP_WRITE, RUN_BYTES, 0},
    [TP_COMMAND_TRAIN_STEP] = {command_train_step, TP_OP_WRITE, 8 + RUN_BYTES, 0},
    [TP_COMMAND_UPDATE] = {command_update, TP_OP_WRITE, 4 + RUN_BYTES, 0},
    [TP_COMMAND_RESET_ADAPTER] = {command_reset_adapter, TP_OP_WRITE, 4 + RUN_BYTES, 0},
    [TP_COMMAND_REQUANTIZE] = {command_requantize, TP_OP_WRITE, RUN_BYTES, 0},
    [TP_COMMAND_EXPORT_ADAPTER] = {command_export_adapter, TP_OP_WRITE, 0, 0},
    [TP_COMMAND_LOAD_ADAPTER] = {command_load_adapter, TP_OP_WRITE, 4, 0},
    [TP_COMMAND_STATS] = {command_stats, TP_OP_READ, 0, 0},
    [TP_COMMAND_EVALUATE] = {command_evaluate, TP_OP_WRITE, 4 + RUN_BYTES, 0},
    [TP_COMMAND_FIT] = {command_fit, TP_OP_WRITE, TP_SERVER_FIT_BYTES, 0},
#ifdef TP_LATENTS
    [TP_COMMAND_ENCODE] = {command_encode, TP_OP_WRITE, 4 + RUN_BYTES, 0},
    [TP_COMMAND_TRAIN_LATENTS] = {command_train_latents, TP_OP_WRITE, 12 + RUN_BYTES, 0},
#endif
};

static tp_status dispatch(tp_server *server, const tp_message_header *header, const uint8_t *message,
                          uint32_t length) {
  if (server->fault != TP_OK) {
    return server->fault;
  }
  if (header->group != TP_GROUP || header->command >= COMMANDS) {
    return TP_ERR_COMMAND;
  }
  const command_entry *entry = &commands[header->command];
  if (header->op != entry->op) {
    return TP_ERR_COMMAND;
  }
  const uint32_t bytes = length - TP_MESSAGE_HEADER;
  if (bytes != header->length || bytes < entry->bytes || (bytes > entry->bytes && entry->open_ended == 0)) {
    return TP_ERR_SIZE;
  }
  return entry->function(server, message + TP_MESSAGE_HEADER, bytes);
}

static void answer(tp_server *server, const uint8_t *message, uint32_t length) {
  const tp_message_header request = tp_message_header_read(message);
  if (request.op != TP_OP_READ && request.op != TP_OP_WRITE) {
    return; /* a response, such as an echo of our own: not to be answered */
  }
  tp_response_begin(&server->response, &request);
  tp_response_finish(&server->response, dispatch(server, &request, message, length));
}

void tp_server_init(tp_server *server, const tp_model *model, const tp_server_config *config, tp_status fault) {
  memset(server, 0, sizeof *server);
  server->model = model;
  server->config = *config;
  tp_response_init(&server->response, config->write, config->context);
  server->fault = fault;
  tp_frame_init(&server->receiver);
}

void tp_server_receive(tp_server *server, uint8_t byte) {
  tp_frame_push(&server->receiver, byte);
  uint32_t length = 0;
  const uint8_t *message = tp_frame_next(&server->receiver, &length);
  while (message != NULL) {
    answer(server, message, length);
    message = tp_frame_next(&server->receiver, &length);
  }
}
