/* nRF51 and nRF52: the high-frequency crystal oscillator in place of the RC oscillator that runs after reset, which is
 * not exact enough for a UART (nRF51 Series Reference Manual and nRF52840 Product Specification, CLOCK). */
#include <stdint.h>

#include "tinypeft/tp_clock.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))

#define TASKS_HFCLKSTART REGISTER(0x40000000u)
#define EVENTS_HFCLKSTARTED REGISTER(0x40000100u)

void tp_clock_init(void) {
  EVENTS_HFCLKSTARTED = 0;
  TASKS_HFCLKSTART = 1;
  while (EVENTS_HFCLKSTARTED == 0) {
  }
}
