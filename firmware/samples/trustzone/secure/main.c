/* The secure side: sets up, shows its hooks and its own inference, starts the non-secure side, trains when it idles. */
#include <arm_cmse.h>
#include <string.h>

#include "attribution.h"
#include "hooks.h"
#include "memory_map.h"
#include "pattern.h"
#include "retained.h"
#include "secure_api.h"
#include "service.h"
#include "text.h"
#include "tinypeft/tp_console.h"
#include "tinypeft/tp_sha256.h"

#define SCB_VTOR_NS (*(volatile uint32_t *)0xE002ED08u)

#define TRAINING_STEPS 8u
#define LEARNING_RATE 0.05f

typedef void __attribute__((cmse_nonsecure_call)) nonsecure_entry(void);

static uint8_t sample[MODEL_SIZE(_INPUT_BYTES)];
static uint8_t output[MODEL_SIZE(_OUTPUT_BYTES)];

static void say_status(const char *what, tp_status status) {
  tp_text(what);
  tp_text(tp_status_text(status));
  tp_text_end();
}

static void say_bytes(const char *what, const uint8_t *bytes, uint32_t length) {
  tp_text(what);
  tp_text_bytes(bytes, length);
  tp_text_end();
}

static void say_number(const char *what, uint32_t number) {
  tp_text(what);
  tp_text_number(number);
  tp_text_end();
}

static void say_attribution(void) {
  for (uint32_t i = 0; i < TP_MEMORY_CONTROLLERS; i++) {
    uint32_t blocks, open;
    tp_attribution_count(i, &blocks, &open);
    tp_text("memory controller ");
    tp_text_number(i + 1u);
    tp_text(": blocks ");
    tp_text_number(blocks);
    say_number(" non-secure ", open);
  }
}

/* A key itself is never printed: what it makes of a known text shows that it is the same. */
static tp_status say_hooks(void) {
  uint8_t key[48], mac[TP_SHA256_BYTES], drawn[16];
  uint32_t counter = 0;
  tp_status status = tp_hooks.key_derive(tp_hooks.context, "checkpoint", key, sizeof key);
  if (status == TP_OK) {
    tp_hmac_sha256(key, sizeof key, "check", 5, NULL, 0, mac);
    say_bytes("key check ", mac, sizeof mac);
    status = tp_hooks.entropy(tp_hooks.context, drawn, sizeof drawn);
  }
  for (int i = 0; i < 2 && status == TP_OK; i++) {
    say_bytes("drawn ", drawn, sizeof drawn);
    status = tp_hooks.entropy(tp_hooks.context, drawn, sizeof drawn);
  }
  /* After the first reset the counter is only read: what it says then it has kept. */
  const uint32_t least[] = {7, 3, 0};
  for (uint32_t i = tp_retained_read()->boots == 1 ? 0 : 2; i < 3 && status == TP_OK; i++) {
    status = tp_hooks.monotonic_counter(tp_hooks.context, least[i], &counter);
    tp_text("counter at least ");
    tp_text_number(least[i]);
    say_number(": ", counter);
  }
  return status;
}

static tp_status say_output(void) {
  tp_pattern(sample, sizeof sample, 0);
  const tp_status status = tp_service_infer(sample, output);
  if (status == TP_OK) {
    say_bytes("secure output ", output, sizeof output);
  }
  return status;
}

static tp_status begin(void) {
  uint32_t seed = 0;
  tp_status status = say_hooks();
  if (status == TP_OK) {
    status = tp_hooks.entropy(tp_hooks.context, (uint8_t *)&seed, sizeof seed);
  }
  if (status == TP_OK) {
    say_number("seed ", seed);
    status = tp_service_init(seed);
  }
  return status == TP_OK ? say_output() : status;
}

/* Non-secure code cannot ask for training: it can only give time for it. What there is to learn, and from what, the
 * secure side alone decides; here once, from samples of its own. */
void tp_secure_idle(void) {
  static int learned;
  if (learned) {
    return;
  }
  learned = 1;
  tp_status status = TP_OK;
  for (uint32_t step = 0; step < TRAINING_STEPS && status == TP_OK; step++) {
    float loss = 0.0f;
    uint32_t bits;
    tp_pattern(sample, sizeof sample, step + 1u);
    status = tp_service_learn(sample, (int32_t)(step % MODEL_SIZE(_CLASSES)), LEARNING_RATE, &loss);
    memcpy(&bits, &loss, sizeof bits);
    tp_text("loss ");
    tp_text_word(bits);
    tp_text_end();
  }
  say_status("trained: ", status == TP_OK ? say_output() : status);
}

uint32_t tp_secure_stage(void) {
  const tp_retained_state *state = tp_retained_read();
  tp_retained_write(state->counter, state->stage + 1u);
  return state->stage - 1u;
}

static void start_nonsecure(void) {
  const uint32_t *vectors = (const uint32_t *)NONSECURE_CODE_ORIGIN;
  if (vectors[0] == 0 || vectors[0] == 0xFFFFFFFFu) {
    tp_text("there is no non-secure image\r\n");
    return;
  }
  SCB_VTOR_NS = NONSECURE_CODE_ORIGIN;
  __asm__ volatile("msr msp_ns, %0" ::"r"(vectors[0]));
  nonsecure_entry *entry = (nonsecure_entry *)cmse_nsfptr_create(vectors[1]);
  entry();
}

int main(void) {
  tp_console_init();
  const tp_status attributed = tp_attribution_init();
  tp_retained_begin();
  say_number("secure boot ", tp_retained_read()->boots);
  if (attributed != TP_OK) {
    say_status("memory map: ", attributed);
    return 1;
  }
  say_attribution();
  const tp_status status = begin();
  if (status != TP_OK) {
    say_status("failed: ", status);
    return 1;
  }
  start_nonsecure();
  return 0;
}
