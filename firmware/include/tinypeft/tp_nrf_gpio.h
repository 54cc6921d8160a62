/* GPIO port 0 of nRF51 and nRF52 (nRF51 Series Reference Manual, nRF52840 Product Specification), for consoles. */
#ifndef TP_NRF_GPIO_H
#define TP_NRF_GPIO_H

#include <stdint.h>

#define TP_NRF_GPIO 0x50000000u

/* Prepare pin `tx` as an output at the idle level, `rx` as an input with its pull-up; both 0 to 31. */
static inline void tp_nrf_uart_pins(uint32_t tx, uint32_t rx) {
  *(volatile uint32_t *)(TP_NRF_GPIO + 0x508u) = 1u << tx;      /* OUTSET */
  *(volatile uint32_t *)(TP_NRF_GPIO + 0x518u) = 1u << tx;      /* DIRSET */
  *(volatile uint32_t *)(TP_NRF_GPIO + 0x700u + 4u * rx) = 0xCu; /* PIN_CNF: input connected, pull-up */
}

#endif
