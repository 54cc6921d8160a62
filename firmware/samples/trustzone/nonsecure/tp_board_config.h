/* The console of the non-secure side: UART1 at its non-secure address. */
#ifndef TP_BOARD_CONFIG_H
#define TP_BOARD_CONFIG_H

#define TP_BOARD_CLOCK_HZ 20000000u
#define TP_CONSOLE_BAUD 115200u
#define TP_CONSOLE_BASE 0x40201000u

#endif
