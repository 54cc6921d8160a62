/* The board as the command server sees it: the console's bytes, the painted stack, a restart. */
#include "tinypeft/tp_board.h"

#include "tinypeft/tp_console.h"
#include "tinypeft/tp_register.h"
#include "tp_board_config.h"

#define SCB_AIRCR 0xE000ED0Cu
#define AIRCR_VECTKEY (0x5FAu << 16)
#define AIRCR_PRIGROUP (7u << 8)
#define AIRCR_SYSRESETREQ (1u << 2)

/* Set by the linker script; the stack grows down from tp_stack_top to tp_stack_limit. */
extern uint32_t tp_stack_limit[];
extern uint32_t tp_stack_top[];

const char tp_board_name[] = TP_BOARD_NAME;
const char tp_board_core[] = TP_BOARD_CORE;
const char tp_board_version[] = TP_FIRMWARE_VERSION;

void tp_board_init(void) { tp_console_init(); }

uint8_t tp_board_read(void) { return tp_console_read(); }

void tp_board_write(const uint8_t *data, uint32_t length) {
  for (uint32_t i = 0; i < length; i++) {
    tp_console_write(data[i]);
  }
}

void tp_board_reset(void) {
  tp_console_flush();
  tp_register_barrier(); /* writes to memory arrive before the reset does */
  const uint32_t group = tp_register_read(SCB_AIRCR) & AIRCR_PRIGROUP;
  tp_register_write(SCB_AIRCR, AIRCR_VECTKEY | group | AIRCR_SYSRESETREQ);
  tp_register_barrier();
  for (;;) { /* the reset takes a few cycles */
  }
}

uint32_t tp_board_stack_bytes(void) { return (uint32_t)((uintptr_t)tp_stack_top - (uintptr_t)tp_stack_limit); }

uint32_t tp_board_stack_high_water(void) {
  /* volatile: the words below the stack pointer are nobody's objects. */
  const volatile uint32_t *word = tp_stack_limit;
  while ((uintptr_t)word < (uintptr_t)tp_stack_top && *word == TP_BOARD_STACK_PATTERN) {
    word++;
  }
  return (uint32_t)((uintptr_t)tp_stack_top - (uintptr_t)word);
}
