#include "tinypeft/tp_server_fit.h"

#include <string.h>

#include "tinypeft/tp_fit.h"
#include "tinypeft/tp_schedule.h"

#define LABEL_BYTES 4u

tp_status tp_server_learning_rate(const uint8_t *bytes, float *learning_rate) {
  const uint32_t bits = tp_get_u32(bytes);
  if (bits >= 0x7F800000u) { /* infinite, not a number, or the sign is set */
    return TP_ERR_ARGUMENT;
  }
  memcpy(learning_rate, &bits, sizeof *learning_rate);
  return TP_OK;
}

static float rate_of(const void *schedule, uint32_t update) { return tp_learning_rate(schedule, update); }

/* TP_ERR_ARGUMENT for what tp_schedule.h does not allow. */
static tp_status get_schedule(const uint8_t *bytes, tp_schedule *schedule) {
  const uint32_t kind = tp_get_u32(bytes);
  tp_status status = tp_server_learning_rate(bytes + 4, &schedule->learning_rate);
  schedule->warmup_steps = tp_get_u32(bytes + 8);
  schedule->total_steps = tp_get_u32(bytes + 12);
  if (status == TP_OK) {
    status = tp_server_learning_rate(bytes + 16, &schedule->final_fraction);
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

static int32_t stored_label(void *context, uint32_t index) { return tp_get_s32(stored(context, index)); }

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

static void append_score(tp_response *response, const tp_fit_score *score) {
  tp_response_append_u32(response, score->right);
  tp_response_append_s64(response, score->loss);
}

static void send_progress(void *context, const tp_fit_progress *progress) {
  tp_response *response = &((tp_server *)context)->response;
  tp_response_stream(response, TP_STREAM_FIT);
  tp_response_append_u32(response, progress->epoch);
  tp_response_append_u32(response, progress->ended);
  tp_response_append_u32(response, progress->steps);
  tp_response_append_u32(response, progress->total);
  tp_response_append_s64(response, progress->loss);
  append_score(response, &progress->score);
  tp_response_end_stream(response);
}

tp_status tp_server_fit(tp_server *server, const uint8_t *request, uint32_t length) {
  (void)length;
  const tp_model *model = server->model;
  tp_response *response = &server->response;
  tp_schedule schedule;
  tp_fit_result result;
  tp_status status = get_schedule(request + 40, &schedule);
  if (status != TP_OK) {
    return status;
  }
  const tp_fit_config config = {
      .epochs = tp_get_u32(request + 4),
      .seed = tp_get_u32(request + 8),
      .learning_rate = rate_of,
      .schedule = &schedule,
      .held_back = tp_get_u32(request + 12),
      .held_back_share = tp_get_u32(request + 16),
      .patience = tp_get_u32(request + 20),
      .guards = tp_get_u32(request + 24),
      .max_undone = tp_get_u32(request + 28),
      .replayed = tp_get_u32(request + 32),
      .min_gain = tp_get_u32(request + 36),
      .progress = send_progress,
      .context = server,
  };
  const tp_samples samples = {
      .context = (void *)(uintptr_t)model,
      .count = tp_get_u32(request),
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
  const uint32_t numbers[] = {result.learned, result.held_back, result.epochs, result.steps, result.updates,
                              result.undone,  result.end,       result.kept,   result.epoch};
  for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
    tp_response_append_u32(response, numbers[i]);
  }
  append_score(response, &result.before);
  append_score(response, &result.after);
  return TP_OK;
}
