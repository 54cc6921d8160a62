/* GPIO of STM32 but for F1 (RM0090, General-purpose I/Os), for console drivers. */
#ifndef TP_STM32_GPIO_H
#define TP_STM32_GPIO_H

#include <stdint.h>

/* Set the bits of `mask` in an enable register of the RCC; returns when the peripheral may be touched. */
static inline void tp_stm32_enable(uint32_t address, uint32_t mask) {
  volatile uint32_t *enable = (volatile uint32_t *)address;
  *enable |= mask;
  (void)*enable; /* read back, so that the clock runs */
}

/* Give `pin`, 0 to 15, of the port at `gpio` to the alternate function `function`, 0 to 15, with its pull-up. */
static inline void tp_stm32_connect_pin(uint32_t gpio, uint32_t pin, uint32_t function) {
  volatile uint32_t *mode = (volatile uint32_t *)(gpio + 0x00u);
  volatile uint32_t *pull = (volatile uint32_t *)(gpio + 0x0Cu);
  volatile uint32_t *alternate = (volatile uint32_t *)(gpio + 0x20u + 4u * (pin / 8u));
  const uint32_t alternate_at = 4u * (pin % 8u);
  const uint32_t at = 2u * pin;
  *alternate = (*alternate & ~(0xFu << alternate_at)) | (function << alternate_at);
  *pull = (*pull & ~(3u << at)) | (1u << at);
  *mode = (*mode & ~(3u << at)) | (2u << at);
}

#endif
