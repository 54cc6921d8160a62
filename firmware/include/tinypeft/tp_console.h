/* The console driver of a board: one file under consoles/, polled, without buffers or interrupts.
 * Addresses, pins and the baud rate come from tp_board_config.h (TP_BOARD_CLOCK_HZ, TP_CONSOLE_*). */
#ifndef TP_CONSOLE_H
#define TP_CONSOLE_H

#include <stdint.h>

/* Enable clocks and pins, set the baud rate, 8 data bits, no parity, 1 stop bit. Called once, before the others. */
void tp_console_init(void);

/* Wait for a byte and return it. */
uint8_t tp_console_read(void);

/* Wait until the transmitter takes `byte`. */
void tp_console_write(uint8_t byte);

/* Wait until the last byte has left the transmitter: a reset then cuts none short. */
void tp_console_flush(void);

#endif
