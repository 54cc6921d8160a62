/* The clock driver of a board whose clock after reset will not do: one file under clocks/.
 * Its numbers come from tp_board_config.h (TP_BOARD_CLOCK_HZ, TP_CLOCK_*). */
#ifndef TP_CLOCK_H
#define TP_CLOCK_H

/* Make the core run at TP_BOARD_CLOCK_HZ, from what the console's baud rate can be derived from, and power the RAMs.
 * Called once, first after reset: no object in RAM has its value yet, and a driver must not rely on one. */
void tp_clock_init(void);

#endif
