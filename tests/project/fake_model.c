/* A model without layers: output = input + 1, a training step adds the label to the adapter. Enough for every command. */
#include <string.h>

#include "tinypeft/tp_device.h"

#ifndef FAKE_ARENA_BYTES
#define FAKE_ARENA_BYTES 1024
#endif

typedef struct {
  int8_t input[8], output[8];
  int32_t logits[2];
  int32_t adapter[4];
  float training[4];
  uint8_t arena[FAKE_ARENA_BYTES];
} fake_model;

static fake_model model;
static volatile float scale = 0.5f; /* .data: lost unless the start-up copies it */

static void *input(void *self) { return ((fake_model *)self)->input; }
static void *output(void *self) { return ((fake_model *)self)->output; }
static void *logits(void *self) { return ((fake_model *)self)->logits; }
static void *adapter(void *self) { return ((fake_model *)self)->adapter; }
static void *training(void *self) { return ((fake_model *)self)->training; }
static void *arena(void *self) { return ((fake_model *)self)->arena; }

static int masters_sane(void *self) {
  (void)self;
  return 1;
}

static tp_status forward(void *self) {
  fake_model *fake = self;
  for (int i = 0; i < 8; i++) {
    fake->output[i] = (int8_t)(fake->input[i] + 1);
  }
  fake->logits[0] = (int32_t)(scale * (float)fake->input[0]);
  return TP_OK;
}

static tp_status train_step(void *self, int32_t label, float learning_rate, float *loss) {
  fake_model *fake = self;
  fake->adapter[0] += label;
  *loss = learning_rate * (float)((int64_t)fake->adapter[0] * 1000000007 / 3);
  return TP_OK;
}

static tp_status update(void *self, float learning_rate) {
  (void)self;
  (void)learning_rate;
  return TP_ERR_UNSUPPORTED;
}

static tp_status reset_adapter(void *self, uint32_t seed) {
  ((fake_model *)self)->adapter[0] = (int32_t)seed;
  return TP_OK;
}

static tp_status requantize(void *self) {
  (void)self;
  return TP_OK;
}

static tp_status export_adapter(void *self, const tp_package_identity *identity, uint8_t *package, uint32_t capacity) {
  (void)identity;
  const fake_model *fake = self;
  if (capacity < sizeof fake->adapter) {
    return TP_ERR_SIZE;
  }
  memcpy(package, fake->adapter, sizeof fake->adapter);
  return TP_OK;
}

static tp_status load_adapter(void *self, const uint8_t *package, uint32_t bytes) {
  fake_model *fake = self;
  if (bytes != sizeof fake->adapter) {
    return TP_ERR_SIZE;
  }
  memcpy(fake->adapter, package, bytes);
  return TP_OK;
}

static int guards_intact(void *self) {
  (void)self;
  return 1;
}

static void set_trace(void *self, tp_trace_function function, void *context) {
  (void)self;
  (void)function;
  (void)context;
}

const tp_security tp_device_security = {0};

const tp_model tp_device_model = {
    .name = "fake",
    .input_bytes = sizeof model.input,
    .output_bytes = sizeof model.output,
    .logits_bytes = sizeof model.logits,
    .adapter_bytes = sizeof model.adapter,
    .training_bytes = sizeof model.training,
    .package_bytes = sizeof model.adapter,
    .arena_bytes = sizeof model.arena,
    .self = &model,
    .input = input,
    .output = output,
    .logits = logits,
    .adapter = adapter,
    .training = training,
    .arena = arena,
    .forward = forward,
    .train_step = train_step,
    .update = update,
    .reset_adapter = reset_adapter,
    .requantize = requantize,
    .export_adapter = export_adapter,
    .load_adapter = load_adapter,
    .masters_sane = masters_sane,
    .guards_intact = guards_intact,
    .set_trace = set_trace,
};

#ifdef FAKE_SELF_TEST
/* Firmware only: prints what the start-up did, then echoes eight bytes. */
#include "tinypeft/tp_board.h"

static void print_number(const char *name, uint32_t value) {
  char digits[12] = "           ";
  int32_t at = 11;
  digits[at] = '\n';
  do {
    digits[--at] = (char)('0' + value % 10u);
    value /= 10u;
  } while (value > 0);
  tp_board_write((const uint8_t *)name, (uint32_t)strlen(name));
  tp_board_write((const uint8_t *)&digits[at], (uint32_t)(12 - at));
}

static uint32_t descend(uint32_t depth) {
  volatile uint8_t frame[64];
  frame[0] = (uint8_t)depth;
  return depth == 0 ? frame[0] : descend(depth - 1) + frame[0];
}

static uint8_t zeroed[100];

tp_status tp_device_init(void) {
  uint32_t zeros = 0;
  for (uint32_t i = 0; i < sizeof zeroed; i++) {
    zeros += zeroed[i] == 0;
  }
  print_number("data=", (uint32_t)(scale * 1000.0f));
  print_number("zeros=", zeros);
  print_number("stack=", tp_board_stack_bytes());
  print_number("before=", tp_board_stack_high_water());
  const uint32_t sum = descend(FAKE_DEPTH);
  print_number("after=", tp_board_stack_high_water());
  print_number("sum=", sum);
  for (int i = 0; i < 8; i++) {
    const uint8_t byte = tp_board_read();
    tp_board_write(&byte, 1);
  }
  return TP_OK;
}
#else
tp_status tp_device_init(void) { return scale > 0.0f ? TP_OK : TP_ERR_FORMAT; }
#endif
