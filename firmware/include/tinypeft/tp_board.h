/* What a board's start-up and console driver give to main(). */
#ifndef TP_BOARD_H
#define TP_BOARD_H

#include <stdint.h>

/* Clocks, FPU and console. Called once, first. */
void tp_board_init(void);

/* The next byte from the console; waits for it. */
uint8_t tp_board_read(void);

/* Send `length` bytes on the console; returns when `data` may be reused. */
void tp_board_write(const uint8_t *data, uint32_t length);

/* Size of the stack in bytes. */
uint32_t tp_board_stack_bytes(void);

/* The most stack used since reset, in bytes. */
uint32_t tp_board_stack_high_water(void);

#endif
