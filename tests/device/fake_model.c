/* A model without layers that exercises every command. Built with
 *   FAKE_INFERENCE_ONLY  no adapter, no training, no tracing
 *   FAKE_BROKEN_START    tp_device_init() fails
 *   TP_LATENTS           the first bytes of the input are what it keeps of a sample */
#include <string.h>

#include "tinypeft/tp_crc.h"
#include "tinypeft/tp_device.h"
#include "tinypeft/tp_fit.h"
#include "tinypeft/tp_server_fit.h"

enum { OUTPUTS = 100, WIDE = 600, DUMPED = 3, EMPTY = 5, CLASSES = 3, SAMPLES = 20, SAMPLE = 4 + 8 + 16, LATENT = 6 };

typedef struct {
  int8_t input[16];
  int8_t output[4];
  int32_t logits[3];
  int32_t adapter[6];
  float training[10];
  int32_t target[2];
  _Alignas(4) uint8_t store[SAMPLES * SAMPLE];
  _Alignas(4) uint8_t fit_memory[TP_FIT_MEMORY_BYTES(24u, 40u, CLASSES, SAMPLES)];
  uint8_t latents[SAMPLES * LATENT];
  uint32_t guard_low;
  uint8_t arena[2048];
  uint32_t guard_high;
  tp_trace_function trace;
  void *trace_context;
} fake_model;

static fake_model fake;

static void *input(void *self) { return ((fake_model *)self)->input; }
static void *output(void *self) { return ((fake_model *)self)->output; }
static void *logits(void *self) { return ((fake_model *)self)->logits; }
static void *adapter(void *self) { return ((fake_model *)self)->adapter; }
static void *training(void *self) { return ((fake_model *)self)->training; }
static void *target(void *self) { return ((fake_model *)self)->target; }
static void *arena(void *self) { return ((fake_model *)self)->arena; }

static int guards_intact(void *self) {
  const fake_model *model = self;
  return model->guard_low == 0xDEADBEEFu && model->guard_high == 0xDEADBEEFu;
}

/* Outputs 0 to OUTPUTS - 1: int32 index, but DUMPED is wide bfp16 and EMPTY has no bytes. */
static void trace_all(fake_model *model) {
  for (int32_t i = 0; i < OUTPUTS && model->trace != NULL; i++) {
    int16_t wide[WIDE];
    for (int32_t j = 0; j < WIDE; j++) {
      wide[j] = (int16_t)(j * 7 - 2000);
    }
    if (i == DUMPED) {
      model->trace(model->trace_context, (uint32_t)i, wide, sizeof wide, -7);
    } else if (i == EMPTY) {
      model->trace(model->trace_context, (uint32_t)i, NULL, 0, 0);
    } else {
      model->trace(model->trace_context, (uint32_t)i, &i, sizeof i, 0);
    }
  }
}

/* Two instructions a round. */
static void spin(uint32_t rounds) {
#if defined(__arm__)
  if (rounds > 0) {
    __asm__ volatile(".syntax unified\n1: subs %0, %0, #1\n bne 1b" : "+l"(rounds) : : "cc");
  }
#else
  (void)rounds;
#endif
}

static tp_status forward(void *self) {
  fake_model *model = self;
  spin((uint32_t)(uint8_t)model->input[1] * 1000u + 1u);
  for (int i = 0; i < 4; i++) {
    model->output[i] = (int8_t)(model->input[i] / 2 + model->adapter[0] % 1000);
  }
  model->logits[0] = model->input[0];
  if (model->input[0] == -128) {
    model->guard_high = 0;
  }
  trace_all(model);
  return model->input[0] == 127 ? TP_ERR_FORMAT : TP_OK;
}

#ifndef FAKE_INFERENCE_ONLY
static void *store(void *self) { return ((fake_model *)self)->store; }
static void *fit_memory(void *self) { return ((fake_model *)self)->fit_memory; }

static void set_trace(void *self, tp_trace_function function, void *context) {
  fake_model *model = self;
  model->trace = function;
  model->trace_context = context;
}

static tp_status train_step(void *self, int32_t label, float learning_rate, float *loss) {
  fake_model *model = self;
  if (model->input[2] == 99) {
    return TP_ERR_FORMAT;
  }
  model->training[label] += learning_rate;
  *loss = 0.5f + (float)label + (float)model->target[1] / 65536.0f;
  trace_all(model);
  return TP_OK;
}

#ifdef TP_LATENTS
static void *latents(void *self) { return ((fake_model *)self)->latents; }

/* Counts in adapter[4]. */
static tp_status encode(void *self, uint8_t *encoded) {
  fake_model *model = self;
  memcpy(encoded, model->input, LATENT);
  model->adapter[4]++;
  trace_all(model);
  return model->input[2] == 99 ? TP_ERR_FORMAT : TP_OK;
}

/* As train_step(), but for the loss. */
static tp_status train_latents(void *self, const uint8_t *encoded, int32_t label, float learning_rate, float *loss) {
  fake_model *model = self;
  model->training[label] += learning_rate;
  *loss = 0.25f + (float)label + (float)encoded[LATENT - 1];
  trace_all(model);
  return TP_OK;
}
#endif

/* The loss is how far the label's master is from 1, at most 4; right where it is closer than a half. */
static tp_status evaluate(void *self, int32_t label, int32_t *loss, int32_t *right) {
  fake_model *model = self;
  const float master = model->training[label];
  *loss = 4 * 65536;
  if (master > -3.0f && master < 5.0f) {
    *loss = (int32_t)((master < 1.0f ? 1.0f - master : master - 1.0f) * 65536.0f);
  }
  *right = *loss < 32768;
  trace_all(model);
  return TP_OK;
}

static int masters_sane(void *self) { return tp_masters_sane(((fake_model *)self)->training, 10); }

static tp_status update(void *self, float learning_rate) {
  fake_model *model = self;
  model->training[9] = learning_rate;
  trace_all(model);
  return TP_OK;
}

static tp_status requantize(void *self) {
  fake_model *model = self;
  const float master = model->training[0]; /* may be anything that the host wrote */
  model->adapter[0] = master > -1000.0f && master < 1000.0f ? (int32_t)master : 0;
  trace_all(model);
  return TP_OK;
}

static tp_status reset_adapter(void *self, uint32_t seed) {
  fake_model *model = self;
  memset(model->adapter, 0, sizeof model->adapter);
  model->adapter[5] = (int32_t)(seed & 0x7FFFFFFFu);
  trace_all(model);
  return TP_OK;
}

static tp_status export_adapter(void *self, uint8_t *package, uint32_t capacity) {
  const fake_model *model = self;
  if (capacity < sizeof model->adapter + 4u) {
    return TP_ERR_SIZE;
  }
  const uint32_t crc = tp_crc32(0, model->adapter, sizeof model->adapter);
  memcpy(package, model->adapter, sizeof model->adapter);
  memcpy(package + sizeof model->adapter, &crc, sizeof crc);
  return TP_OK;
}

static tp_status load_adapter(void *self, const uint8_t *package, uint32_t bytes) {
  fake_model *model = self;
  uint32_t crc;
  if (bytes != sizeof model->adapter + 4u) {
    return TP_ERR_SIZE;
  }
  memcpy(&crc, package + sizeof model->adapter, sizeof crc);
  if (crc != tp_crc32(0, package, sizeof model->adapter)) {
    return TP_ERR_CHECKSUM;
  }
  memcpy(model->adapter, package, sizeof model->adapter);
  return TP_OK;
}
#endif

const tp_model tp_device_model = {
    .name = "fake",
    .fingerprint = {1, 2, 3},
    .input_bytes = sizeof fake.input,
    .output_bytes = sizeof fake.output,
    .arena_bytes = sizeof fake.arena,
    .self = &fake,
    .input = input,
    .output = output,
    .logits = logits,
    .adapter = adapter,
    .training = training,
    .arena = arena,
    .target = target,
    .forward = forward,
    .guards_intact = guards_intact,
#ifndef FAKE_INFERENCE_ONLY
    .logits_bytes = sizeof fake.logits,
    .adapter_bytes = sizeof fake.adapter,
    .training_bytes = sizeof fake.training,
    .package_bytes = sizeof fake.adapter + 4,
    .target_bytes = sizeof fake.target,
    .classes = CLASSES,
    .batch_size = 1,
    .samples = SAMPLES,
    .sample_bytes = SAMPLE,
    .fit_bytes = sizeof fake.fit_memory,
    .store = store,
    .fit_memory = fit_memory,
    .fit = tp_server_fit,
#ifdef TP_LATENTS
    .latent_bytes = LATENT,
    .latents = latents,
    .encode = encode,
    .train_latents = train_latents,
#endif
    .evaluate = evaluate,
    .masters_sane = masters_sane,
    .train_step = train_step,
    .update = update,
    .requantize = requantize,
    .reset_adapter = reset_adapter,
    .export_adapter = export_adapter,
    .load_adapter = load_adapter,
    .set_trace = set_trace,
#endif
};

tp_status tp_device_init(void) {
  memset(&fake, 0, sizeof fake);
  fake.guard_low = 0xDEADBEEFu;
  fake.guard_high = 0xDEADBEEFu;
#ifdef FAKE_BROKEN_START
  return TP_ERR_FORMAT;
#else
  return TP_OK;
#endif
}
