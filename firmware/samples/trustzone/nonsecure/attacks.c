/* Attempts at the secure side's memory, functions and console. Addresses come from secure.elf: they are no secret. */
#include "attacks.h"

#include <stddef.h>

#include "memory_map.h"
#include "secure_addresses.h"
#include "secure_api.h"
#include "text.h"

#include TP_MODEL_HEADER
#define JOINED(left, right) left##right
#define JOIN(left, right) JOINED(left, right)
#define INPUT_BYTES JOIN(TP_MODEL_UPPER, _INPUT_BYTES)
#define OUTPUT_BYTES JOIN(TP_MODEL_UPPER, _OUTPUT_BYTES)

#define SECURE_ALIAS 0x10000000u
#define END_OF_RAM (NONSECURE_RAM_ORIGIN + NONSECURE_RAM_LENGTH - 1)

static uint8_t input[INPUT_BYTES];
static uint8_t output[OUTPUT_BYTES];

static void *at(uint32_t address) { return (void *)(uintptr_t)address; }

static void refused(const char *what, const void *from, uint32_t from_bytes, void *to, uint32_t to_bytes) {
  const tp_status status = tp_secure_infer(from, from_bytes, to, to_bytes);
  tp_text("refused ");
  tp_text(what);
  tp_text(": ");
  tp_text(status < 0 ? "-" : "");
  tp_text_number((uint32_t)(status < 0 ? -(int32_t)status : (int32_t)status));
  tp_text_end();
}

void tp_attack_pointers(void) {
  refused("output in adapter", input, sizeof input, at(SECURE_tp_model_adapter), sizeof output);
  refused("output in training", input, sizeof input, at(SECURE_tp_model_training), sizeof output);
  refused("output in arena", input, sizeof input, at(SECURE_tp_model_arena), sizeof output);
  refused("output in adapter's other alias", input, sizeof input, at(SECURE_tp_model_adapter ^ SECURE_ALIAS),
          sizeof output);
  refused("output in secure code", input, sizeof input, at(SECURE_CODE_ORIGIN), sizeof output);
  refused("output across the end of memory", input, sizeof input, at(END_OF_RAM), sizeof output);
  refused("output across the end of addresses", input, sizeof input, at(0xFFFFFFFFu), sizeof output);
  refused("output nowhere", input, sizeof input, NULL, sizeof output);
  refused("input in secret", at(SECURE_tp_device_secret), sizeof input, output, sizeof output);
  refused("input in adapter", at(SECURE_tp_model_adapter), sizeof input, output, sizeof output);
  refused("input across the end of memory", at(END_OF_RAM), sizeof input, output, sizeof output);
  refused("input in secure console", at(0x50200000u), sizeof input, output, sizeof output);
  refused("input too short", input, sizeof input - 1u, output, sizeof output);
  refused("output too long", input, sizeof input, output, sizeof output + 1u);
}

enum { READ, WRITE, CALL };

typedef struct {
  const char *name;
  uint32_t address;
  int how;
} attempt;

static const attempt attempts[] = {
    {"adapter", SECURE_tp_model_adapter, READ},
    {"adapter's other alias", SECURE_tp_model_adapter ^ SECURE_ALIAS, READ},
    {"training", SECURE_tp_model_training, READ},
    {"training's other alias", SECURE_tp_model_training ^ SECURE_ALIAS, READ},
    {"arena", SECURE_tp_model_arena, READ},
    {"arena's other alias", SECURE_tp_model_arena ^ SECURE_ALIAS, READ},
    {"adapter", SECURE_tp_model_adapter, WRITE},
    {"secret", SECURE_tp_device_secret, READ},
    {"secret's other alias", SECURE_tp_device_secret ^ SECURE_ALIAS, READ},
    {"counter", RETAINED_ORIGIN, WRITE},
    {"key derivation", SECURE_key_derive, CALL},
    {"training step", SECURE_tp_service_learn, CALL},
    {"secure console", 0x40200010u, READ}, /* the divider of its baud rate, not 0 */
};

uint32_t tp_attacks(void) { return sizeof attempts / sizeof attempts[0]; }

void tp_attack(uint32_t index) {
  const attempt *a = &attempts[index];
  static const char *const verbs[] = {"read ", "write ", "call "};
  tp_text("try ");
  tp_text(verbs[a->how]);
  tp_text(a->name);
  tp_text(" ");
  tp_text_word(a->address);
  tp_text_end();
  volatile uint32_t *const word = at(a->address);
  if (a->how == READ) {
    const uint32_t value = *word;
    tp_text("got ");
    tp_text_word(value);
  } else if (a->how == WRITE) {
    *word = 0;
    tp_text("wrote");
  } else {
    ((void (*)(void))(uintptr_t)(a->address | 1u))();
    tp_text("called");
  }
  tp_text_end();
}
