#include "tinypeft/tp_fit.h"

#include <string.h>

#include "tinypeft/tp_arithmetic.h"

#define MAX_EPOCHS 65535u
#define MAX_SAMPLES 65535u
#define PROGRESS_RUNS 16u
#define ONE_Q16 65536u

/* A run of tp_fit(). `best` and `step` are copies of adapter and training state. */
typedef struct {
  const tp_model *model;
  const tp_fit_config *config;
  const tp_samples *samples;
  tp_fit_result *result;
  uint8_t *best;
  uint8_t *step;
  uint32_t *counts; /* of each class: its samples, and how many of them are held back, in halves of a word */
  uint16_t *order;  /* numbers of samples: first those to learn from, then those held back */
  uint32_t classes;
  uint32_t state; /* of the random numbers, never 0 */
  uint32_t updates;
  uint32_t runs;
  int has_best;
  tp_fit_progress progress;
} fit;

uint32_t tp_fit_memory_bytes(const tp_model *model, uint32_t samples) {
  return TP_FIT_MEMORY_BYTES(model->adapter_bytes, model->training_bytes, model->classes, samples);
}

int tp_masters_sane(const float *master, uint32_t count) {
  for (uint32_t i = 0; i < count; i++) {
    if (!(master[i] > -TP_MASTER_LIMIT && master[i] < TP_MASTER_LIMIT)) { /* true for not a number, too */
      return 0;
    }
  }
  return 1;
}

static void save(const fit *f, uint8_t *copy) {
  const tp_model *model = f->model;
  memcpy(copy, model->adapter(model->self), model->adapter_bytes);
  memcpy(copy + TP_FIT_ALIGN(model->adapter_bytes), model->training(model->self), model->training_bytes);
}

static void restore(const fit *f, const uint8_t *copy) {
  const tp_model *model = f->model;
  memcpy(model->adapter(model->self), copy, model->adapter_bytes);
  memcpy(model->training(model->self), copy + TP_FIT_ALIGN(model->adapter_bytes), model->training_bytes);
  if (model->pending != NULL) {
    *model->pending(model->self) = 0;
  }
}

/* A random number below `limit`, by xorshift32. */
static uint32_t draw(fit *f, uint32_t limit) {
  f->state ^= f->state << 13;
  f->state ^= f->state >> 17;
  f->state ^= f->state << 5;
  return (uint32_t)(((uint64_t)f->state * limit) >> 32);
}

static void swap(uint16_t *order, uint32_t i, uint32_t j) {
  const uint16_t kept = order[i];
  order[i] = order[j];
  order[j] = kept;
}

static void shuffle(fit *f, uint32_t count) {
  for (uint32_t i = count; i > 1; i--) {
    swap(f->order, i - 1, draw(f, i));
  }
}

static int32_t label_of(const fit *f, uint32_t index) {
  return f->model->classes > 0 ? f->samples->label(f->samples->context, index) : 0;
}

/* How many of a class's `count` samples are held back. */
static uint32_t quota(const tp_fit_config *config, uint32_t count) {
  const uint64_t share = ((uint64_t)count * config->held_back_share + ONE_Q16 / 2u) / ONE_Q16;
  const uint64_t wanted = share + config->held_back;
  return wanted < count ? (uint32_t)wanted : count - 1u;
}

/* Fill `order` and decide what is held back. */
static tp_status split(fit *f) {
  const uint32_t count = f->samples->count;
  const uint32_t own = count - f->config->replayed;
  memset(f->counts, 0, f->classes * sizeof *f->counts);
  for (uint32_t i = 0; i < count; i++) {
    const int32_t label = label_of(f, i);
    if (label < 0 || (uint32_t)label >= f->classes) {
      return TP_ERR_ARGUMENT;
    }
    f->order[i] = (uint16_t)i;
    f->counts[label] += i < own ? 1u : 0u;
  }
  shuffle(f, count);
  uint32_t learned = 0;
  for (uint32_t i = 0; i < count; i++) {
    uint32_t *of_class = &f->counts[label_of(f, f->order[i])];
    if (f->order[i] < own && *of_class >> 16 < quota(f->config, *of_class & 0xFFFFu)) {
      *of_class += 1u << 16;
    } else {
      swap(f->order, learned, i);
      learned++;
    }
  }
  f->result->learned = learned;
  f->result->held_back = count - learned;
  return TP_OK;
}

static void report(fit *f, uint32_t ended) {
  f->progress.ended = ended;
  f->progress.steps = f->result->steps;
  if (f->config->progress != NULL) {
    f->config->progress(f->config->context, &f->progress);
  }
}

static tp_status load(fit *f, uint32_t index) {
  const tp_model *model = f->model;
  if (++f->runs % PROGRESS_RUNS == 0) {
    report(f, 0);
  }
  void *target = model->target_bytes > 0 ? model->target(model->self) : NULL;
  return f->samples->load(f->samples->context, index, model->input(model->self), target);
}

/* Judge the adapter as it is, on what is held back. */
static tp_status judge(fit *f, tp_fit_score *score) {
  const tp_model *model = f->model;
  tp_fit_score sum = {0, 0};
  for (uint32_t i = f->result->learned; i < f->samples->count; i++) {
    int32_t loss = 0, right = 0;
    tp_status status = load(f, f->order[i]);
    if (status == TP_OK) {
      status = model->evaluate(model->self, label_of(f, f->order[i]), &loss, &right);
    }
    if (status != TP_OK) {
      return status;
    }
    sum.right += (uint32_t)right;
    sum.loss += loss;
  }
  f->progress.score = *score = sum;
  return TP_OK;
}

static int better(const tp_fit_score *a, const tp_fit_score *b) {
  return a->right > b->right || (a->right == b->right && a->loss < b->loss);
}

/* Whether the loss has become so much lower that the adapter from before may be replaced. */
static int gains(const fit *f, const tp_fit_score *now) {
  return (f->config->guards & TP_FIT_DO_NO_HARM) == 0 || f->config->min_gain == 0 ||
         f->result->before.loss - now->loss >= (int64_t)f->config->min_gain;
}

/* What follows a complete batch; begins with the update where the model sums gradients. */
static tp_status finish_batch(fit *f, float learning_rate) {
  const tp_model *model = f->model;
  if (model->batch_size > 1) {
    const tp_status status = model->update(model->self, learning_rate);
    if (status != TP_OK) {
      return status;
    }
  }
  f->updates++;
  if ((f->config->guards & TP_FIT_UNDO) == 0 || model->masters_sane(model->self) != 0) {
    f->result->updates++;
    return TP_OK;
  }
  restore(f, f->step);
  if (++f->result->undone >= f->config->max_undone) {
    f->result->end = TP_FIT_TOO_MANY_UNDONE;
  }
  return TP_OK;
}

/* Learn from a sample whose input is in place. */
static tp_status train_sample(const fit *f, uint32_t index, float learning_rate, float *loss) {
  const tp_model *model = f->model;
#ifdef TP_LATENTS
  if (f->samples->latents != NULL) {
    uint8_t *latents = f->samples->latents(f->samples->context, index);
    const tp_status status = f->result->epochs == 1 ? model->encode(model->self, latents) : TP_OK;
    return status != TP_OK ? status
                           : model->train_latents(model->self, latents, label_of(f, index), learning_rate, loss);
  }
#endif
  return model->train_step(model->self, label_of(f, index), learning_rate, loss);
}

static tp_status train_epoch(fit *f) {
  const tp_model *model = f->model;
  const uint32_t count = f->result->learned;
  uint32_t in_batch = 0;
  f->progress.loss = 0;
  shuffle(f, count);
  for (uint32_t i = 0; i < count && f->result->end != TP_FIT_TOO_MANY_UNDONE; i++) {
    const float learning_rate = f->config->learning_rate(f->config->schedule, f->updates);
    float loss = 0.0f;
    if (in_batch == 0 && (f->config->guards & TP_FIT_UNDO) != 0) {
      save(f, f->step);
    }
    tp_status status = load(f, f->order[i]);
    if (status == TP_OK) {
      status = train_sample(f, f->order[i], learning_rate, &loss);
    }
    if (status != TP_OK) {
      return status;
    }
    f->progress.loss += (int64_t)(loss * (float)ONE_Q16);
    f->result->steps++;
    in_batch++;
    if (in_batch == model->batch_size || i + 1u == count) {
      in_batch = 0;
      status = finish_batch(f, learning_rate);
      if (status != TP_OK) {
        return status;
      }
    }
  }
  return TP_OK;
}

/* Judge an epoch's adapter and keep it where it is the best so far. Returns whether it is better than that was. */
static tp_status judge_epoch(fit *f, tp_fit_score *best, int *improved) {
  tp_fit_result *result = f->result;
  tp_fit_score now;
  const tp_status status = judge(f, &now);
  if (status != TP_OK) {
    return status;
  }
  if (result->epoch == 0 || better(&now, &result->after)) {
    result->after = now;
    result->epoch = result->epochs;
  }
  *improved = !f->has_best || better(&now, best);
  /* as good as the one from before is not worse */
  if (gains(f, &now) && (*improved || (!result->kept && !better(best, &now)))) {
    *best = now;
    result->kept = result->updates > 0;
    if (result->kept != 0 || !f->has_best) {
      save(f, f->best);
      f->has_best = 1;
    }
  }
  return TP_OK;
}

static tp_status train(fit *f) {
  const tp_fit_config *config = f->config;
  tp_fit_result *result = f->result;
  tp_fit_score best = result->before;
  uint32_t waited = 0;
  while (result->epochs < config->epochs && result->end == TP_FIT_ALL_EPOCHS) {
    int improved = 1;
    f->progress.epoch = ++result->epochs;
    tp_status status = train_epoch(f);
    if (status == TP_OK && config->patience > 0) {
      status = judge_epoch(f, &best, &improved);
    }
    if (status != TP_OK) {
      return status;
    }
    report(f, 1);
    waited = improved ? 0 : waited + 1;
    if (waited >= config->patience && config->patience > 0 && result->end == TP_FIT_ALL_EPOCHS &&
        result->epochs < config->epochs) {
      result->end = TP_FIT_OUT_OF_PATIENCE;
    }
  }
  return TP_OK;
}

/* Without patience, judge the last adapter; then put back what is to stay. */
static tp_status conclude(fit *f) {
  tp_fit_result *result = f->result;
  if (f->config->patience == 0) {
    result->epoch = result->epochs;
    const tp_status status = judge(f, &result->after);
    if (status != TP_OK) {
      return status;
    }
    result->kept = result->updates > 0 && gains(f, &result->after) &&
                   !(f->has_best && better(&result->before, &result->after));
  }
  if (f->has_best && (f->config->patience > 0 || !result->kept)) {
    restore(f, f->best);
  }
  return TP_OK;
}

static tp_status run(fit *f) {
  tp_status status = judge(f, &f->result->before);
  if (status == TP_OK) {
    status = train(f);
  }
  return status == TP_OK ? conclude(f) : status;
}

static tp_status check(const tp_model *model, const tp_fit_config *config, const tp_samples *samples,
                       const tp_fit_memory *memory) {
  if (model->training_bytes == 0 || model->train_step == NULL || model->evaluate == NULL) {
    return TP_ERR_UNSUPPORTED;
  }
  if (config->epochs == 0 || config->epochs > MAX_EPOCHS || samples->count == 0 || samples->count > MAX_SAMPLES ||
      config->held_back_share > ONE_Q16 || config->replayed > samples->count ||
      (config->guards & ~(uint32_t)TP_FIT_ALL_GUARDS) != 0 ||
      ((config->guards & TP_FIT_UNDO) != 0 && config->max_undone == 0)) {
    return TP_ERR_ARGUMENT;
  }
  if (model->pending != NULL && *model->pending(model->self) != 0) {
    return TP_ERR_ARGUMENT;
  }
  return memory->bytes >= tp_fit_memory_bytes(model, samples->count) ? TP_OK : TP_ERR_SIZE;
}

tp_status tp_fit(const tp_model *model, const tp_fit_config *config, const tp_samples *samples,
                 const tp_fit_memory *memory, tp_fit_result *result) {
  tp_status status = check(model, config, samples, memory);
  if (status != TP_OK) {
    return status;
  }
  fit f = {.model = model, .config = config, .samples = samples, .result = result};
  const uint32_t copy_bytes = TP_FIT_ALIGN(model->adapter_bytes) + TP_FIT_ALIGN(model->training_bytes);
  f.classes = model->classes > 0 ? model->classes : 1u;
  f.counts = memory->data;
  f.best = (uint8_t *)(f.counts + f.classes);
  f.step = f.best + copy_bytes;
  f.order = (void *)(f.step + copy_bytes);
  f.state = (config->seed + 1u) * 2654435761u;
  f.state = f.state != 0 ? f.state : 1u;
  memset(result, 0, sizeof *result);
  status = split(&f);
  if (status != TP_OK) {
    return status;
  }
  if (result->held_back == 0 && ((config->guards & TP_FIT_DO_NO_HARM) != 0 || config->patience > 0)) {
    return TP_ERR_ARGUMENT;
  }
  f.progress.total = result->learned * config->epochs;
  save(&f, f.best);
  f.has_best = (config->guards & TP_FIT_DO_NO_HARM) != 0;
  status = run(&f);
  if (status != TP_OK) {
    restore(&f, f.best);
  }
  return status;
}
