/* tp_fit() on the fake model, whose masters move by the learning rate and are best at 1. Prints the line of the first
 * check that fails, and ends with 1. */
#include <stdio.h>
#include <string.h>

#include "tinypeft/tp_device.h"
#include "tinypeft/tp_fit.h"

enum { COUNT = 12, CLASSES = 3, PER_EPOCH = 3, LOADS = 1000 };

#define CHECK(condition) \
  do {                   \
    if (!(condition)) {  \
      return __LINE__;   \
    }                    \
  } while (0)

static float master(int label) { return ((float *)tp_device_model.training(tp_device_model.self))[label]; }

/* Samples: number i is of class i % CLASSES. What is loaded is noted. */
static uint32_t loads[LOADS];
static uint32_t loaded;
static int32_t label_of_first = 0;
static uint32_t broken = 1000, bad_input = 1000;

static int32_t label(void *context, uint32_t index) {
  (void)context;
  return index == 0 ? label_of_first : (int32_t)(index % CLASSES);
}

static tp_status load(void *context, uint32_t index, void *input, void *target) {
  (void)context;
  if (loaded < LOADS) {
    loads[loaded] = index;
  }
  loaded++;
  memset(input, (int)index, tp_device_model.input_bytes);
  ((int8_t *)input)[2] = loaded == bad_input ? 99 : 0;
  memset(target, 0, tp_device_model.target_bytes);
  return loaded == broken ? TP_ERR_FORMAT : TP_OK;
}

/* The rate of update number `spike` is huge, others are `rate`. */
typedef struct {
  float rate;
  uint32_t spike;
} spiked;

static float learning_rate(const void *schedule, uint32_t update) {
  const spiked *s = schedule;
  return update == s->spike ? 1e30f : s->rate;
}

static uint32_t ended, heard, last_steps;

static void progress(void *context, const tp_fit_progress *p) {
  (void)context;
  heard++;
  ended += p->ended;
  last_steps = p->steps;
}

static spiked schedule;
static tp_fit_config config;
static tp_samples samples;
static tp_fit_result result;
static _Alignas(4) uint8_t memory_bytes[2000];
static tp_fit_memory memory;

/* A fresh model and settings that learn 3 of 4 samples a class, for two epochs. */
static void begin(float rate) {
  tp_device_init();
  schedule = (spiked){.rate = rate, .spike = UINT32_MAX};
  config = (tp_fit_config){.epochs = 2,
                           .seed = 5,
                           .learning_rate = learning_rate,
                           .schedule = &schedule,
                           .held_back = 1,
                           .guards = TP_FIT_ALL_GUARDS,
                           .max_undone = 3,
                           .progress = progress};
  samples = (tp_samples){.count = COUNT, .label = label, .load = load};
  memory = (tp_fit_memory){.data = memory_bytes, .bytes = tp_fit_memory_bytes(&tp_device_model, COUNT)};
  loaded = ended = heard = last_steps = 0;
  label_of_first = 0;
  broken = bad_input = 1000;
}

static tp_status run(void) { return tp_fit(&tp_device_model, &config, &samples, &memory, &result); }

static int all_masters(float value) { return master(0) == value && master(1) == value && master(2) == value; }

static int learns(void) {
  begin(0.0625f);
  CHECK(run() == TP_OK);
  CHECK(result.learned == 9 && result.held_back == 3 && result.epochs == 2 && result.epoch == 2);
  CHECK(result.steps == 18 && result.updates == 18 && result.undone == 0 && result.end == TP_FIT_ALL_EPOCHS);
  CHECK(result.kept == 1 && all_masters(2 * PER_EPOCH * 0.0625f));
  CHECK(result.before.right == 0 && result.before.loss == 3 * 65536);
  CHECK(result.after.right == 0 && result.after.loss == 3 * 40960);
  CHECK(ended == 2 && last_steps == 18 && heard == 2 + loaded / 16);
  CHECK(loaded == 3 + 18 + 3);
  for (uint32_t held = 0; held < 3; held++) { /* judged twice, learned from never */
    uint32_t times = 0;
    for (uint32_t i = 0; i < loaded; i++) {
      times += loads[i] == loads[held];
    }
    CHECK(times == 2);
  }
  int moved = 0;
  for (uint32_t i = 3; i < 12; i++) {
    uint32_t times = 0;
    for (uint32_t j = 3; j < 12; j++) {
      times += loads[i] == loads[9 + j];
    }
    CHECK(times == 1); /* every sample once an epoch */
    moved |= loads[i] != loads[9 + i];
  }
  CHECK(moved);
  const uint32_t first = loads[3];
  uint32_t other = 0;
  for (config.seed = 0; config.seed < 8; config.seed++) {
    loaded = 0;
    CHECK(run() == TP_OK);
    other |= loads[3] ^ first;
  }
  CHECK(other != 0);
  return 0;
}

static int holds_back(void) {
  begin(0.0f);
  config.held_back = 0;
  config.held_back_share = 32768;
  CHECK(run() == TP_OK && result.held_back == 6);
  config.held_back = 1;
  CHECK(run() == TP_OK && result.held_back == 9);
  config.held_back = UINT32_MAX; /* one a class is always learned from */
  CHECK(run() == TP_OK && result.held_back == 9 && result.learned == 3);
  samples.count = 3;
  CHECK(run() == TP_ERR_ARGUMENT);
  config.guards = TP_FIT_UNDO;
  CHECK(run() == TP_OK && result.learned == 3);
  config.patience = 1;
  CHECK(run() == TP_ERR_ARGUMENT);
  return 0;
}

static int does_no_harm(void) {
  begin(0.5f); /* 1.5 each epoch: at the end 2 from the best, before 1 */
  CHECK(run() == TP_OK);
  CHECK(result.kept == 0 && result.after.loss == 3 * 2 * 65536 && all_masters(0.0f));
  begin(0.5f);
  config.guards = TP_FIT_UNDO;
  CHECK(run() == TP_OK && result.kept == 1 && all_masters(3.0f));
  begin(0.0f); /* as good as before is kept */
  CHECK(run() == TP_OK && result.kept == 1);
  return 0;
}

static int stops_early(void) {
  begin(0.125f); /* 0.375 each epoch: the third is the best */
  config.epochs = 20;
  config.patience = 2;
  CHECK(run() == TP_OK);
  CHECK(result.end == TP_FIT_OUT_OF_PATIENCE && result.epochs == 5 && result.epoch == 3 && result.kept == 1);
  CHECK(all_masters(1.125f) && result.after.right == 3 && result.after.loss == 3 * 8192);
  begin(0.125f);
  config.epochs = 4;
  config.patience = 3;
  CHECK(run() == TP_OK && result.end == TP_FIT_ALL_EPOCHS && result.epochs == 4 && all_masters(1.125f));
  begin(0.125f);
  config.epochs = 5;
  config.guards = 0;
  CHECK(run() == TP_OK && result.epochs == 5 && all_masters(1.875f));
  begin(1.0f); /* never better than before */
  config.epochs = 20;
  config.patience = 2;
  CHECK(run() == TP_OK && result.kept == 0 && result.epochs == 2 && all_masters(0.0f));
  begin(1.0f); /* the same without do no harm: the best of them */
  config.epochs = 20;
  config.patience = 2;
  config.guards = 0;
  CHECK(run() == TP_OK && result.kept == 1 && result.epoch == 1 && result.epochs == 3 && all_masters(3.0f));
  return 0;
}

static int undoes(void) {
  begin(1e30f);
  CHECK(run() == TP_OK);
  CHECK(result.undone == 3 && result.updates == 0 && result.steps == 3 && result.end == TP_FIT_TOO_MANY_UNDONE);
  CHECK(result.kept == 0 && all_masters(0.0f));
  begin(1e30f); /* what undoes it is not the rail in front */
  config.guards = TP_FIT_UNDO;
  CHECK(run() == TP_OK && result.undone == 3 && result.kept == 0 && all_masters(0.0f));
  begin(1e30f);
  config.guards = 0;
  CHECK(run() == TP_OK && result.undone == 0 && master(0) > 1e30f);
  begin(0.0625f);
  schedule.spike = 4;
  CHECK(run() == TP_OK && result.undone == 1 && result.updates == 17 && result.end == TP_FIT_ALL_EPOCHS);
  CHECK(master(0) + master(1) + master(2) == 17 * 0.0625f);
  return 0;
}

static int32_t waiting;
static int32_t *pending(void *self) {
  (void)self;
  return &waiting;
}

static int batches(void) {
  begin(0.0625f);
  tp_model batched = tp_device_model;
  batched.batch_size = 4;
  batched.pending = pending;
  waiting = 1;
  CHECK(tp_fit(&batched, &config, &samples, &memory, &result) == TP_ERR_ARGUMENT);
  waiting = 0;
  CHECK(tp_fit(&batched, &config, &samples, &memory, &result) == TP_OK);
  CHECK(result.updates == 2 * 3 && ((float *)batched.training(batched.self))[9] == 0.0625f);
  begin(0.0625f);
  schedule.spike = 2; /* the batch of one sample at the end of the first epoch */
  CHECK(tp_fit(&batched, &config, &samples, &memory, &result) == TP_OK);
  CHECK(result.undone == 1 && result.updates == 5 && result.steps == 18);
  CHECK(master(0) + master(1) + master(2) == 17 * 0.0625f);
  begin(0.0625f);
  broken = 3 + 2;
  waiting = 0;
  CHECK(tp_fit(&batched, &config, &samples, &memory, &result) == TP_ERR_FORMAT);
  return waiting == 0 && all_masters(0.0f) ? 0 : __LINE__;
}

static int refuses(void) {
  begin(0.0625f);
  memory.bytes--;
  CHECK(run() == TP_ERR_SIZE);
  begin(0.0625f);
  samples.count = 0;
  CHECK(run() == TP_ERR_ARGUMENT);
  samples.count = 65536;
  CHECK(run() == TP_ERR_ARGUMENT);
  begin(0.0625f);
  config.epochs = 0;
  CHECK(run() == TP_ERR_ARGUMENT);
  config.epochs = 65536;
  CHECK(run() == TP_ERR_ARGUMENT);
  begin(0.0625f);
  config.guards = 4;
  CHECK(run() == TP_ERR_ARGUMENT);
  begin(0.0625f);
  config.max_undone = 0;
  CHECK(run() == TP_ERR_ARGUMENT);
  begin(0.0625f);
  config.held_back_share = 65537;
  CHECK(run() == TP_ERR_ARGUMENT);
  begin(0.0625f);
  config.replayed = COUNT + 1;
  CHECK(run() == TP_ERR_ARGUMENT);
  config.replayed = COUNT; /* nothing is left to judge by */
  CHECK(run() == TP_ERR_ARGUMENT);
  for (label_of_first = -1; label_of_first <= CLASSES; label_of_first += CLASSES + 1) {
    const int32_t tried = label_of_first;
    begin(0.0625f);
    label_of_first = tried;
    CHECK(run() == TP_ERR_ARGUMENT && all_masters(0.0f));
  }
  for (broken = 1; broken <= 24; broken++) { /* whichever sample does not come: the adapter from before */
    const uint32_t tried = broken;
    begin(0.0625f);
    broken = tried;
    CHECK(run() == TP_ERR_FORMAT && all_masters(0.0f));
  }
  begin(0.0625f);
  bad_input = 3 + 11; /* the model itself fails */
  CHECK(run() == TP_ERR_FORMAT && all_masters(0.0f));
  begin(0.0625f);
  tp_model untrained = tp_device_model;
  untrained.training_bytes = 0;
  CHECK(tp_fit(&untrained, &config, &samples, &memory, &result) == TP_ERR_UNSUPPORTED);
  return 0;
}

static int judges_masters(void) {
  const float sane[] = {0.0f, -1048575.0f, 1048575.0f};
  CHECK(tp_masters_sane(sane, 3) && tp_masters_sane(sane, 0));
  const float zero = sane[0];
  const float insane[] = {1048576.0f, -1048576.0f, 1.0f / zero, -1.0f / zero, zero / zero};
  for (int i = 0; i < 5; i++) {
    const float with[] = {1.0f, insane[i]};
    CHECK(!tp_masters_sane(with, 2) && tp_masters_sane(with, 1));
  }
  return 0;
}

int main(void) {
  int (*const cases[])(void) = {learns, holds_back, does_no_harm, stops_early, undoes, batches, refuses, judges_masters};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    const int line = cases[i]();
    if (line != 0) {
      printf("%d\n", line);
      return 1;
    }
  }
  return 0;
}
