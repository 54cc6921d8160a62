#include "tinypeft/tp_server_fit.h"

#include <string.h>

#include "tinypeft/tp_fit.h"
#include "tinypeft/tp_schedule.h"

#define LABEL_BYTES 4u

tp_status tp_server_learning_rate(const tp_request *request, tp_key key, float *learning_rate) {
  uint32_t bits;
  *learning_rate = tp_request_float(request, key, 0.0f);
  memcpy(&bits, learning_rate, sizeof bits);
  return bits >= 0x7F800000u ? TP_ERR_ARGUMENT : TP_OK; /* infinite, not a number, or the sign is set */
}

static float rate_of(const void *schedule, uint32_t update) { return tp_learning_rate(schedule, update); }

/* TP_ERR_ARGUMENT for what tp_schedule.h does not allow. */
static tp_status get_schedule(const tp_request *request, tp_schedule *schedule) {
  const uint32_t kind = tp_request_u32(request, TP_KEY_SCHEDULE, TP_SCHEDULE_CONSTANT);
  tp_status status = tp_server_learning_rate(request, TP_KEY_RATE, &schedule->learning_rate);
  schedule->warmup_steps = tp_request_u32(request, TP_KEY_WARMUP_STEPS, 0);
  schedule->total_steps = tp_request_u32(request, TP_KEY_TOTAL_STEPS, 0);
  if (status == TP_OK) {
    status = tp_server_learning_rate(request, TP_KEY_FINAL_FRACTION, &schedule->final_fraction);
  }
  if (status != TP_OK || kind > TP_SCHEDULE_COSINE || schedule->final_fraction > 1.0f ||
      schedule->total_steps > INT32_MAX ||
      (kind != TP_SCHEDULE_CONSTANT && schedule->warmup_steps > schedule->total_steps)) {
    return TP_ERR_ARGUMENT;
  }
  schedule->kind = (tp_schedule_kind)kind;
  return TP_OK;
}

static const uint8_t *stored(const tp_model *model, uint32_t index) {
  return (const uint8_t *)model->store(model->self) + (size_t)index * model->sample_bytes;
}

static int32_t stored_label(void *context, uint32_t index) {
  const uint8_t *bytes = stored(context, index);
  uint32_t bits = 0;
  for (uint32_t i = LABEL_BYTES; i > 0; i--) {
    bits = bits << 8 | bytes[i - 1u];
  }
  int32_t label;
  memcpy(&label, &bits, sizeof label);
  return label;
}

static tp_status load_stored(void *context, uint32_t index, void *input, void *target) {
  const tp_model *model = context;
  const uint8_t *sample = stored(model, index) + (model->classes > 0 ? LABEL_BYTES : 0u);
  if (model->target_bytes > 0) {
    memcpy(target, sample, model->target_bytes);
  }
  memcpy(input, sample + model->target_bytes, model->input_bytes);
  return TP_OK;
}

#ifdef TP_LATENTS
static void *stored_latents(void *context, uint32_t index) { return tp_server_latents(context, index); }
#endif

static void append_score(tp_response *response, const char *key, const tp_fit_score *score) {
  tp_response_begin_map(response, key);
  tp_response_u32(response, "right", score->right);
  tp_response_integer(response, "loss", score->loss);
  tp_response_end(response);
}

static void send_progress(void *context, const tp_fit_progress *progress) {
  tp_response *response = &((tp_server *)context)->response;
  tp_response_stream(response);
  tp_response_begin_map(response, "fit");
  tp_response_u32(response, "epoch", progress->epoch);
  tp_response_bool(response, "ended", progress->ended != 0);
  tp_response_u32(response, "steps", progress->steps);
  tp_response_u32(response, "total", progress->total);
  tp_response_integer(response, "loss", progress->loss);
  tp_response_u32(response, "right", progress->score.right);
  tp_response_integer(response, "judged", progress->score.loss);
  tp_response_end(response);
  tp_response_end_stream(response);
}

tp_status tp_server_fit(tp_server *server, const tp_request *request) {
  const tp_model *model = server->model;
  tp_response *response = &server->response;
  tp_schedule schedule;
  tp_fit_result result;
  tp_status status = get_schedule(request, &schedule);
  if (status != TP_OK) {
    return status;
  }
  const tp_fit_config config = {
      .epochs = tp_request_u32(request, TP_KEY_EPOCHS, 0),
      .seed = tp_request_u32(request, TP_KEY_SEED, 0),
      .learning_rate = rate_of,
      .schedule = &schedule,
      .held_back = tp_request_u32(request, TP_KEY_HELD_BACK, 0),
      .held_back_share = tp_request_u32(request, TP_KEY_HELD_BACK_SHARE, 0),
      .patience = tp_request_u32(request, TP_KEY_PATIENCE, 0),
      .guards = tp_request_u32(request, TP_KEY_GUARDS, 0),
      .max_undone = tp_request_u32(request, TP_KEY_MAX_UNDONE, 0),
      .replayed = tp_request_u32(request, TP_KEY_REPLAYED, 0),
      .min_gain = tp_request_u32(request, TP_KEY_MIN_GAIN, 0),
      .progress = send_progress,
      .context = server,
  };
  const tp_samples samples = {
      .context = (void *)(uintptr_t)model,
      .count = tp_request_u32(request, TP_KEY_SAMPLES, 0),
      .label = stored_label,
      .load = load_stored,
#ifdef TP_LATENTS
      .latents = stored_latents,
#endif
  };
  const tp_fit_memory memory = {.data = model->fit_memory(model->self), .bytes = model->fit_bytes};
  if (samples.count > model->samples) {
    return TP_ERR_ARGUMENT;
  }
  status = tp_fit(model, &config, &samples, &memory, &result);
  if (status != TP_OK) {
    return status;
  }
  tp_response_u32(response, "learned", result.learned);
  tp_response_u32(response, "held_back", result.held_back);
  tp_response_u32(response, "epochs", result.epochs);
  tp_response_u32(response, "steps", result.steps);
  tp_response_u32(response, "updates", result.updates);
  tp_response_u32(response, "undone", result.undone);
  tp_response_u32(response, "end", result.end);
  tp_response_bool(response, "kept", result.kept != 0);
  tp_response_u32(response, "epoch", result.epoch);
  append_score(response, "before", &result.before);
  append_score(response, "after", &result.after);
  return TP_OK;
}
