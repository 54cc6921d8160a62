/* The board as the command server sees it: the console's bytes and the painted stack. */
#include "tinypeft/tp_board.h"

#include "tinypeft/tp_console.h"
#include "tp_board_config.h"

/* Set by the linker script; the stack grows down from tp_stack_top to tp_stack_limit. */
extern uint32_t tp_stack_limit[];
extern uint32_t tp_stack_top[];

void tp_board_init(void) { tp_console_init(); }

uint8_t tp_board_read(void) { return tp_console_read(); }

void tp_board_write(const uint8_t *data, uint32_t length) {
  for (uint32_t i = 0; i < length; i++) {
    tp_console_write(data[i]);
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
