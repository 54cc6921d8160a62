/* The non-secure application: asks for inferences, then attacks; after each attack that faults it starts again. */
#include "attacks.h"
#include "pattern.h"
#include "secure_api.h"
#include "text.h"
#include "tinypeft/tp_console.h"

#include TP_MODEL_HEADER
#define JOINED(left, right) left##right
#define JOIN(left, right) JOINED(left, right)

static uint8_t input[JOIN(TP_MODEL_UPPER, _INPUT_BYTES)];
static uint8_t output[JOIN(TP_MODEL_UPPER, _OUTPUT_BYTES)];

static void infer(void) {
  tp_pattern(input, sizeof input, 0);
  const tp_status status = tp_secure_infer(input, sizeof input, output, sizeof output);
  tp_text(status == TP_OK ? "non-secure output " : "no output");
  tp_text_bytes(output, status == TP_OK ? sizeof output : 0);
  tp_text_end();
}

static void demonstrate(void) {
  infer();
  tp_attack_pointers();
  infer();
  tp_secure_idle();
  infer();
}

int main(void) {
  tp_console_init();
  uint32_t stage = tp_secure_stage();
  if (stage == 0) {
    demonstrate();
    stage = tp_secure_stage();
  }
  for (; stage <= tp_attacks(); stage = tp_secure_stage()) {
    tp_attack(stage - 1u);
  }
  tp_text("trustzone sample done");
  tp_text_end();
  return 0;
}
