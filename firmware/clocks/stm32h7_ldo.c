/* STM32H742, H743, H750 and H753 (RM0433): the core voltage from the LDO; the clock stays HSI, 64 MHz.
 *
 * Until the supply is configured, the chip is in its mode Run*, in which RAM must not be written (RM0433, Power
 * control, System supply startup): this function therefore uses no stack. */
#include <stdint.h>

#include "tinypeft/tp_clock.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))

#define PWR_CSR1 REGISTER(0x58024804u)
#define PWR_CR3 REGISTER(0x5802480Cu)
#define RCC_AHB2ENR REGISTER(0x580244DCu)

#define CR3_BYPASS (1u << 0)
#define CR3_LDOEN (1u << 1)
#define CR3_SCUEN (1u << 2)
#define CSR1_ACTVOSRDY (1u << 13)
/* The supply is ready in microseconds. The wait has an end all the same: emulators lack the flag. */
#define WAIT_LIMIT 100000u

#define AHB2ENR_SRAM1_SRAM2_SRAM3 (7u << 29)

void tp_clock_init(void) {
  /* Only the first write after power-on counts: it locks the configuration. */
  PWR_CR3 = (PWR_CR3 & ~(CR3_BYPASS | CR3_SCUEN)) | CR3_LDOEN;
  for (uint32_t i = 0; i < WAIT_LIMIT && (PWR_CSR1 & CSR1_ACTVOSRDY) == 0; i++) {
  }
  RCC_AHB2ENR |= AHB2ENR_SRAM1_SRAM2_SRAM3;
  (void)RCC_AHB2ENR; /* read back, so that the clocks run */
}
