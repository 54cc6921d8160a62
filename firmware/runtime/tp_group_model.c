/* What the model can do, as commands: inference, training, its memories. */
#include <string.h>

#ifdef TP_STORE
#include "tinypeft/tp_adapters.h"
#endif
#include "tinypeft/tp_bytes.h"
#include "tinypeft/tp_count.h"
#include "tinypeft/tp_crc.h"
#include "tinypeft/tp_server_fit.h"

#define TRACE_RECORD_BYTES 12u

/* Runs: what calls the model and may be traced */

static void send_dump(tp_response *response, const uint8_t *data, uint32_t length, int32_t exponent) {
  uint32_t done = 0;
  do {
    tp_response_stream(response);
    tp_response_integer(response, "exponent", exponent);
    const uint32_t room = tp_response_room(response, "dump");
    const uint32_t part = length - done < room ? length - done : room;
    tp_response_bytes(response, "dump", part > 0 ? data + done : NULL, part);
    done += part;
  } while (done < length);
}

static void trace_output(void *context, uint32_t index, const void *data, uint32_t bytes, int32_t exponent) {
  tp_server *server = context;
  tp_response *response = &server->response;
  if (server->trace != 0) {
    uint8_t record[TRACE_RECORD_BYTES];
    tp_put_u32(record, (uint32_t)exponent);
    const uint32_t crc = tp_crc32(tp_crc32(0, data, bytes), record, 4);
    tp_put_u32(record, index);
    tp_put_u32(record + 4, bytes);
    tp_put_u32(record + 8, crc);
    if (response->string == 0 || tp_response_string_room(response) < TRACE_RECORD_BYTES) {
      tp_response_stream(response);
      tp_response_begin_string(response, "trace", TP_CBOR_BYTES);
    }
    tp_response_fill(response, record, sizeof record);
  }
  if (index == server->dump) {
    send_dump(response, data, bytes, exponent);
  }
}

static int is_traced(const tp_server *server) { return server->trace != 0 || server->dump != TP_NO_DUMP; }

/* Take the input, if it is given. Whatever else of the request may be wrong has been checked. */
static tp_status take_input(const tp_model *model, const tp_request *request) {
  const tp_span input = tp_request_span(request, TP_KEY_INPUT);
  if (!tp_request_has(request, TP_KEY_INPUT)) {
    return TP_OK;
  }
  if (input.length != model->input_bytes) {
    return TP_ERR_SIZE;
  }
  memcpy(model->input(model->self), input.data, input.length);
  return TP_OK;
}

static tp_status run_begin(tp_server *server, const tp_request *request) {
  const tp_model *model = server->model;
  server->trace = tp_request_bool(request, TP_KEY_TRACE) != 0 ? 1u : 0u;
  server->dump = tp_request_u32(request, TP_KEY_DUMP, TP_NO_DUMP);
  if (is_traced(server) && model->set_trace == NULL) {
    return TP_ERR_UNSUPPORTED;
  }
  const tp_status status = take_input(model, request);
  if (status == TP_OK && is_traced(server)) {
    model->set_trace(model->self, trace_output, server);
  }
  return status;
}

static tp_status run_end(tp_server *server, tp_status status) {
  const tp_model *model = server->model;
  if (is_traced(server)) {
    model->set_trace(model->self, NULL, NULL);
    tp_response_end_stream(&server->response);
  }
  return status;
}

/* What a command does to the adapter that serves. Of a device that keeps several, the one that is trained differs from
 * the stored one from then on, and the one that is written has no name. */
typedef enum { TRAINED, WRITTEN } adapter_use;

static tp_status claim(const tp_server *server, adapter_use use) {
  if (server->model->unmerge != NULL) {
    server->model->unmerge(server->model->self);
  }
#ifdef TP_STORE
  tp_adapters *adapters = server->adapters;
  return use == TRAINED ? tp_adapters_train(adapters) : tp_adapters_write(adapters);
#else
  (void)use;
  return TP_OK;
#endif
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

/* All of an object from an offset on, in which `length` bytes are wanted. TP_ERR_COMMAND: no such object;
 * TP_ERR_UNSUPPORTED: empty here. */
static tp_status object_find(const tp_model *model, const tp_request *request, uint32_t length, object_range *range) {
  const uint32_t offset = tp_request_u32(request, TP_KEY_OFF, 0);
  void *(*locate)(void *) = NULL;
  uint32_t bytes = 0;
  switch (tp_request_u32(request, TP_KEY_OBJECT, 0)) {
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
  range->bytes = bytes - offset;
  return TP_OK;
}

/* Commands */

static int info(tp_server *server, const tp_request *request) {
  (void)request;
  const tp_model *model = server->model;
  tp_response *response = &server->response;
  const struct {
    const char *key;
    uint32_t value;
  } numbers[] = {
      {"protocol", TP_PROTOCOL_VERSION},   {"payload", TP_MAX_PAYLOAD},         {"input", model->input_bytes},
      {"output", model->output_bytes},     {"logits", model->logits_bytes},     {"adapter", model->adapter_bytes},
      {"training", model->training_bytes}, {"package", model->package_bytes},   {"arena", model->arena_bytes},
      {"target", model->target_bytes},     {"classes", model->classes},         {"samples", model->samples},
      {"sample", model->sample_bytes},
  };
  for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
    tp_response_u32(response, numbers[i].key, numbers[i].value);
  }
  tp_response_bytes(response, "fingerprint", model->fingerprint, sizeof model->fingerprint);
  const uint32_t room = tp_response_room(response, "name"), length = (uint32_t)strlen(model->name);
  tp_response_text(response, "name", model->name, length < room ? length : room);
  return TP_OK;
}

static int write_object(tp_server *server, const tp_request *request) {
  const uint32_t object = tp_request_u32(request, TP_KEY_OBJECT, 0);
  const tp_span data = tp_request_span(request, TP_KEY_DATA);
  if (object == TP_OBJECT_OUTPUT || object == TP_OBJECT_LOGITS) {
    return TP_ERR_ARGUMENT;
  }
  object_range range;
  tp_status status = object_find(server->model, request, data.length, &range);
  if (status == TP_OK && object == TP_OBJECT_TRAINING) {
    status = claim(server, TRAINED);
  }
  if (status == TP_OK && object == TP_OBJECT_ADAPTER) {
    status = claim(server, WRITTEN);
  }
  if (status == TP_OK) {
    status = object_find(server->model, request, data.length, &range); /* which may be elsewhere now */
  }
  if (status == TP_OK) {
    memcpy(range.data, data.data, data.length);
    tp_response_u32(&server->response, "off", tp_request_u32(request, TP_KEY_OFF, 0) + data.length);
  }
  return status;
}

static int read_object(tp_server *server, const tp_request *request) {
  tp_response *response = &server->response;
  object_range range;
  const tp_status status = object_find(server->model, request, tp_request_u32(request, TP_KEY_LEN, 0), &range);
  if (status == TP_OK) {
    tp_response_u32(response, "off", tp_request_u32(request, TP_KEY_OFF, 0));
    const uint32_t wanted = tp_request_u32(request, TP_KEY_LEN, range.bytes), room = tp_response_room(response, "data");
    tp_response_bytes(response, "data", range.data, wanted < room ? wanted : room);
  }
  return status;
}

static int infer(tp_server *server, const tp_request *request) {
  const tp_model *model = server->model;
  tp_status status = run_begin(server, request);
  if (status != TP_OK) {
    return status;
  }
  TP_COUNT_BEGIN();
  status = model->forward(model->self);
  TP_COUNT_END();
  status = run_end(server, status);
  if (status == TP_OK && model->output_bytes <= tp_response_room(&server->response, "output")) {
    tp_response_bytes(&server->response, "output", model->output(model->self), model->output_bytes);
  }
  return status;
}

static int label_in_range(const tp_model *model, int32_t label) {
  return model->classes == 0 || (label >= 0 && (uint32_t)label < model->classes);
}

static void append_masters_sane(tp_server *server) {
  const tp_model *model = server->model;
  tp_response_bool(&server->response, "sane", model->masters_sane(model->self));
}

typedef tp_status (*step_function)(const tp_model *model, const uint8_t *latents, int32_t label, float learning_rate,
                                   float *loss);

static tp_status step_from_input(const tp_model *model, const uint8_t *latents, int32_t label, float learning_rate,
                                 float *loss) {
  (void)latents;
  return model->train_step(model->self, label, learning_rate, loss);
}

static tp_status train(tp_server *server, const tp_request *request, step_function step, const uint8_t *latents) {
  const tp_model *model = server->model;
  const int32_t label = tp_request_s32(request, TP_KEY_LABEL, 0);
  float learning_rate = 0.0f;
  float loss = 0.0f;
  if (model->train_step == NULL || model->training_bytes == 0) {
    return TP_ERR_UNSUPPORTED;
  }
  if (!label_in_range(model, label)) {
    return TP_ERR_ARGUMENT;
  }
  tp_status status = tp_server_learning_rate(request, TP_KEY_RATE, &learning_rate);
  if (status == TP_OK) {
    status = claim(server, TRAINED);
  }
  if (status != TP_OK) {
    return status;
  }
  status = run_begin(server, request);
  if (status != TP_OK) {
    return status;
  }
  TP_COUNT_BEGIN();
  status = step(model, latents, label, learning_rate, &loss);
  TP_COUNT_END();
  status = run_end(server, status);
  tp_response_float(&server->response, "loss", loss);
  append_masters_sane(server);
  return status;
}

static int train_step(tp_server *server, const tp_request *request) {
  return train(server, request, step_from_input, NULL);
}

static int update(tp_server *server, const tp_request *request) {
  const tp_model *model = server->model;
  float learning_rate = 0.0f;
  if (model->update == NULL || model->training_bytes == 0) {
    return TP_ERR_UNSUPPORTED;
  }
  tp_status status = tp_server_learning_rate(request, TP_KEY_RATE, &learning_rate);
  if (status == TP_OK) {
    status = claim(server, TRAINED);
  }
  if (status != TP_OK) {
    return status;
  }
  status = run_begin(server, request);
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

/* Of a request or, without one there, of the platform's entropy. */
static tp_status seed_of(const tp_server *server, const tp_request *request, uint32_t *seed) {
  *seed = tp_request_u32(request, TP_KEY_SEED, 0);
  if (tp_request_has(request, TP_KEY_SEED)) {
    return TP_OK;
  }
#ifdef TP_STORE
  const tp_security *security = server->adapters->security;
  if (security->entropy != NULL) {
    uint8_t bytes[4];
    const tp_status status = security->entropy(security->context, bytes, sizeof bytes);
    *seed = tp_get_u32(bytes);
    return status;
  }
#else
  (void)server;
#endif
  return TP_ERR_ARGUMENT;
}

static int reset_adapter(tp_server *server, const tp_request *request) {
  const tp_model *model = server->model;
  uint32_t seed;
  if (model->reset_adapter == NULL) {
    return TP_ERR_UNSUPPORTED;
  }
  tp_status status = seed_of(server, request, &seed);
  if (status == TP_OK) {
    status = claim(server, WRITTEN);
  }
  if (status == TP_OK) {
    status = run_begin(server, request);
  }
  return status != TP_OK ? status : run_end(server, model->reset_adapter(model->self, seed));
}

static int requantize(tp_server *server, const tp_request *request) {
  const tp_model *model = server->model;
  if (model->requantize == NULL || model->training_bytes == 0) {
    return TP_ERR_UNSUPPORTED;
  }
  tp_status status = claim(server, TRAINED);
  if (status == TP_OK) {
    status = run_begin(server, request);
  }
  return status != TP_OK ? status : run_end(server, model->requantize(model->self));
}

static int export_adapter(tp_server *server, const tp_request *request) {
  (void)request;
  const tp_model *model = server->model;
  if (model->export_adapter == NULL || model->package_bytes == 0) {
    return TP_ERR_UNSUPPORTED;
  }
  tp_response_u32(&server->response, "len", model->package_bytes);
  return model->export_adapter(model->self, NULL, model->arena(model->self), model->arena_bytes);
}

static int load_adapter(tp_server *server, const tp_request *request) {
  const tp_model *model = server->model;
  const uint32_t bytes = tp_request_u32(request, TP_KEY_LEN, 0);
  if (model->load_adapter == NULL || model->package_bytes == 0) {
    return TP_ERR_UNSUPPORTED;
  }
  if (bytes > model->arena_bytes) {
    return TP_ERR_SIZE;
  }
  const uint8_t *package = model->arena(model->self);
#ifdef TP_STORE
  return tp_adapters_load(server->adapters, package, bytes);
#else
  return model->load_adapter(model->self, package, bytes);
#endif
}

static int stats(tp_server *server, const tp_request *request) {
  (void)request;
  const tp_model *model = server->model;
  const tp_server_config *config = server->config;
  tp_response *response = &server->response;
  const uint32_t stack = config->stack_bytes != NULL ? config->stack_bytes(config->context) : 0u;
  const uint32_t used = config->stack_high_water != NULL ? config->stack_high_water(config->context) : 0u;
  tp_response_u32(response, "stack", stack);
  tp_response_u32(response, "stack_used", used);
  tp_response_bool(response, "guards", model->guards_intact(model->self));
  tp_response_u32(response, "received", server->receiver.received);
  tp_response_u32(response, "dropped", server->receiver.dropped);
  return TP_OK;
}

static int evaluate(tp_server *server, const tp_request *request) {
  const tp_model *model = server->model;
  const int32_t label = tp_request_s32(request, TP_KEY_LABEL, 0);
  int32_t loss = 0, right = 0;
  if (model->evaluate == NULL || model->training_bytes == 0) {
    return TP_ERR_UNSUPPORTED;
  }
  if (!label_in_range(model, label)) {
    return TP_ERR_ARGUMENT;
  }
  tp_status status = run_begin(server, request);
  if (status != TP_OK) {
    return status;
  }
  TP_COUNT_BEGIN();
  status = model->evaluate(model->self, label, &loss, &right);
  TP_COUNT_END();
  status = run_end(server, status);
  tp_response_integer(&server->response, "loss", loss);
  tp_response_integer(&server->response, "right", right);
  return status;
}

static int fit(tp_server *server, const tp_request *request) {
  const tp_model *model = server->model;
  if (model->fit == NULL || model->samples == 0) {
    return TP_ERR_UNSUPPORTED;
  }
  const tp_status status = claim(server, TRAINED);
  return status == TP_OK ? model->fit(server, request) : status;
}

#ifdef TP_LATENTS
static int encode(tp_server *server, const tp_request *request) {
  const tp_model *model = server->model;
  const uint32_t sample = tp_request_u32(request, TP_KEY_SAMPLE, 0);
  if (sample >= latent_room(model)) {
    return TP_ERR_ARGUMENT;
  }
  tp_status status = run_begin(server, request);
  if (status != TP_OK) {
    return status;
  }
  TP_COUNT_BEGIN();
  status = model->encode(model->self, tp_server_latents(model, sample));
  TP_COUNT_END();
  status = run_end(server, status);
  tp_response_u32(&server->response, "len", model->latent_bytes);
  return status;
}

static tp_status step_from_latents(const tp_model *model, const uint8_t *latents, int32_t label, float learning_rate,
                                   float *loss) {
  return model->train_latents(model->self, latents, label, learning_rate, loss);
}

static int train_latents(tp_server *server, const tp_request *request) {
  const uint32_t sample = tp_request_u32(request, TP_KEY_SAMPLE, 0);
  if (sample >= latent_room(server->model)) {
    return TP_ERR_ARGUMENT;
  }
  return train(server, request, step_from_latents, tp_server_latents(server->model, sample));
}
#endif

static int merge(tp_server *server, const tp_request *request) {
  const tp_model *model = server->model;
  (void)request;
  if (model->merge == NULL) {
    return TP_ERR_UNSUPPORTED;
  }
  model->merge(model->self);
  return TP_OK;
}

static int unmerge(tp_server *server, const tp_request *request) {
  const tp_model *model = server->model;
  (void)request;
  if (model->unmerge == NULL) {
    return TP_ERR_UNSUPPORTED;
  }
  model->unmerge(model->self);
  return TP_OK;
}

static const tp_handler handlers[] = {
    {info, 0, TP_OP_READ, TP_COMMAND_INFO},
    {write_object, TP_HAS(OBJECT) | TP_HAS(OFF) | TP_HAS(DATA), TP_OP_WRITE, TP_COMMAND_WRITE},
    {read_object, TP_HAS(OBJECT), TP_OP_READ, TP_COMMAND_READ},
    {infer, 0, TP_OP_WRITE, TP_COMMAND_INFER},
    {train_step, TP_HAS(RATE), TP_OP_WRITE, TP_COMMAND_TRAIN_STEP},
    {update, TP_HAS(RATE), TP_OP_WRITE, TP_COMMAND_UPDATE},
    {reset_adapter, 0, TP_OP_WRITE, TP_COMMAND_RESET_ADAPTER},
    {requantize, 0, TP_OP_WRITE, TP_COMMAND_REQUANTIZE},
    {export_adapter, 0, TP_OP_WRITE, TP_COMMAND_EXPORT_ADAPTER},
    {load_adapter, TP_HAS(LEN), TP_OP_WRITE, TP_COMMAND_LOAD_ADAPTER},
    {stats, 0, TP_OP_READ, TP_COMMAND_STATS},
    {evaluate, 0, TP_OP_WRITE, TP_COMMAND_EVALUATE},
    {fit, TP_HAS(SAMPLES) | TP_HAS(EPOCHS) | TP_HAS(RATE), TP_OP_WRITE, TP_COMMAND_FIT},
#ifdef TP_LATENTS
    {encode, TP_HAS(SAMPLE), TP_OP_WRITE, TP_COMMAND_ENCODE},
    {train_latents, TP_HAS(SAMPLE) | TP_HAS(RATE), TP_OP_WRITE, TP_COMMAND_TRAIN_LATENTS},
#endif
    {merge, 0, TP_OP_WRITE, TP_COMMAND_MERGE},
    {unmerge, 0, TP_OP_WRITE, TP_COMMAND_UNMERGE},
};

const tp_group tp_group_model = {TP_GROUP_MODEL, sizeof handlers / sizeof handlers[0], 1, 0, handlers, NULL};
