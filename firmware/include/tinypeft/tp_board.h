/* What a board's start-up and its drivers of console and storage give to main(). */
#ifndef TP_BOARD_H
#define TP_BOARD_H

#include <stdint.h>

#include "tp_flash.h"

/* For people: the board, its core, and the version of tinypeft that the firmware is of. */
extern const char tp_board_name[], tp_board_core[], tp_board_version[];

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

/* Restart, as after power-on but for what RAM outside .data and .bss holds; waits for the console's last byte. */
_Noreturn void tp_board_reset(void);

/* The storage of the board, TP_STORAGE_SECTORS sectors, and on a host that of the twin; the store's log is for its
 * first TP_STORAGE_LOG_SECTORS. Only in a project with a storage: one file under storages/. */
const tp_flash *tp_board_flash(void);

#endif
