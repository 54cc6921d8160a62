/* A model without layers that exercises every command. Built with
 *   FAKE_INFERENCE_ONLY  no adapter, no training, no tracing
 *   FAKE_BROKEN_START    tp_device_init() fails
 *   TP_LATENTS           the first bytes of the input are what it keeps of a sample
 *   TP_STORE             several adapters, in packages of ranks 1 and 2
 *   FAKE_GAPS            memory between its buffers, for fake_gaps() */
#include <string.h>

#ifdef TP_STORE
#include "tinypeft/tp_adapters.h"
#endif
#include "tinypeft/tp_crc.h"
#include "tinypeft/tp_device.h"
#include "tinypeft/tp_fit.h"
#include "tinypeft/tp_server_fit.h"

enum { OUTPUTS = 100, WIDE = 600, DUMPED = 3, EMPTY = 5 };
enum { CLASSES = 3, SAMPLES = 20, SAMPLE = 4 + 8 + 16, LATENT = 6, ADAPTER = 6 };

#define ADAPTER_BYTES (ADAPTER * sizeof(int32_t))

#ifdef FAKE_GAPS
#define GAP_BYTES 32
#define GAP(name) _Alignas(8) uint8_t name[GAP_BYTES];
#else
#define GAP(name)
#endif

typedef struct {
  GAP(below)
  _Alignas(8) int8_t input[16];
  GAP(behind_input)
  int8_t output[4];
  GAP(behind_output)
  int32_t logits[3];
  GAP(behind_logits)
  float training[10];
  GAP(behind_training)
  int32_t target[2];
  GAP(behind_target)
  _Alignas(4) uint8_t store[SAMPLES * SAMPLE];
  GAP(behind_store)
  _Alignas(4) uint8_t fit_memory[TP_FIT_MEMORY_BYTES(ADAPTER_BYTES, 40u, CLASSES, SAMPLES)];
  GAP(behind_fit_memory)
  uint8_t latents[SAMPLES * LATENT];
  GAP(behind_latents)
  int32_t *adapter; /* that serves */
  uint32_t guard_low;
  GAP(before_arena)
  uint8_t arena[2048];
  GAP(behind_arena)
  uint32_t guard_high;
  tp_trace_function trace;
  void *trace_context;
} fake_model;

#ifdef FAKE_GAPS
/* Calls a function with each gap, so that a sanitizer may be told. */
void fake_gaps(void (*each)(const volatile void *gap, size_t bytes));
#endif

static fake_model fake;
#ifdef TP_STORE
static int32_t residents[TP_RESIDENT][ADAPTER];
static const int32_t base[ADAPTER];
#else
static int32_t residents[1][ADAPTER];
#endif

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
  if (model->trace == NULL) {
    return;
  }
  int16_t wide[WIDE];
  for (int32_t j = 0; j < WIDE; j++) {
    wide[j] = (int16_t)(j * 7 - 2000);
  }
  for (int32_t i = 0; i < OUTPUTS; i++) {
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
#ifndef TP_STORE /* where it may be the constant of the base model */
  model->adapter[4]++;
#endif
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
  memset(model->adapter, 0, ADAPTER_BYTES);
  model->adapter[5] = (int32_t)(seed & 0x7FFFFFFFu);
  trace_all(model);
  return TP_OK;
}

#ifdef TP_STORE
static const uint8_t fingerprint[32] = {1, 2, 3};
static const tp_package_tensor tensors[] = {{1, 1, 8, 0, 0}, {1, 2, 4, 1, 0}, {4, 2, 1, 1, 0}};
static const tp_package_info package_info = {
    .fingerprint = fingerprint,
    .layout = 0x1A40u,
    .payload_bytes = ADAPTER_BYTES,
    .method = TP_METHOD_LORA,
    .rank = 2,
    .tensors = tensors,
    .tensor_count = sizeof tensors / sizeof tensors[0],
};

static void *resident(void *self, uint32_t index) {
  (void)self;
  return residents[index];
}

static int base_serves(const fake_model *model) { return model->adapter == base; }

static void use_adapter(void *self, void *memory) {
  fake_model *model = self;
  model->adapter = memory != NULL ? memory : (int32_t *)(uintptr_t)base;
}

static void replaced_adapter(void *self, const void *memory) { (void)self, (void)memory; }

static tp_status prepare_training(void *self) { return base_serves(self) ? TP_ERR_STATE : TP_OK; }

static tp_status export_adapter(void *self, const tp_package_identity *identity, uint8_t *package, uint32_t capacity) {
  const fake_model *model = self;
  return tp_package_write(&package_info, identity, model->adapter, package, capacity);
}

static tp_status load_adapter(void *self, const uint8_t *package, uint32_t bytes) {
  const fake_model *model = self;
  void *const source = (void *)(uintptr_t)package;
  tp_package_header header;
  if (base_serves(model)) {
    return TP_ERR_STATE;
  }
  const tp_status status = tp_package_verify(&package_info, tp_package_read_memory, source, bytes, NULL, &header);
  return status != TP_OK ? status
                         : tp_package_load(&package_info, tp_package_read_memory, source, &header, model->adapter);
}
#else
static tp_status export_adapter(void *self, const tp_package_identity *identity, uint8_t *package, uint32_t capacity) {
  (void)identity;
  const fake_model *model = self;
  if (capacity < ADAPTER_BYTES + 4u) {
    return TP_ERR_SIZE;
  }
  const uint32_t crc = tp_crc32(0, model->adapter, ADAPTER_BYTES);
  memcpy(package, model->adapter, ADAPTER_BYTES);
  memcpy(package + ADAPTER_BYTES, &crc, sizeof crc);
  return TP_OK;
}

static tp_status load_adapter(void *self, const uint8_t *package, uint32_t bytes) {
  fake_model *model = self;
  uint32_t crc;
  if (bytes != ADAPTER_BYTES + 4u) {
    return TP_ERR_SIZE;
  }
  memcpy(&crc, package + ADAPTER_BYTES, sizeof crc);
  if (crc != tp_crc32(0, package, ADAPTER_BYTES)) {
    return TP_ERR_CHECKSUM;
  }
  memcpy(model->adapter, package, ADAPTER_BYTES);
  return TP_OK;
}
#endif
#endif

const tp_security tp_device_security = {0};

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
    .adapter_bytes = ADAPTER_BYTES,
    .training_bytes = sizeof fake.training,
#ifdef TP_STORE
    .package_bytes = ADAPTER_BYTES + TP_PACKAGE_OVERHEAD_BYTES,
    .package_info = &package_info,
    .resident = resident,
    .use_adapter = use_adapter,
    .replaced_adapter = replaced_adapter,
    .prepare_training = prepare_training,
#else
    .package_bytes = ADAPTER_BYTES + 4,
#endif
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
  memset(residents, 0, sizeof residents);
  fake.adapter = residents[0];
  fake.guard_low = 0xDEADBEEFu;
  fake.guard_high = 0xDEADBEEFu;
#ifdef FAKE_BROKEN_START
  return TP_ERR_FORMAT;
#else
  return TP_OK;
#endif
}

#ifdef FAKE_GAPS
void fake_gaps(void (*each)(const volatile void *gap, size_t bytes)) {
  uint8_t *const gaps[] = {
      fake.below,         fake.behind_input, fake.behind_output,     fake.behind_logits,  fake.behind_training,
      fake.behind_target, fake.behind_store, fake.behind_fit_memory, fake.behind_latents, fake.before_arena,
      fake.behind_arena,
  };
  for (size_t i = 0; i < sizeof gaps / sizeof gaps[0]; i++) {
    each(gaps[i], GAP_BYTES);
  }
}
#endif
