/* STM32L552 and L562 (RM0438), TrustZone off: HSI16 in place of the 4 MHz MSI that runs after reset and is not exact
 * enough for a UART; and the supply of port G, which has a pin of its own, VDDIO2. */
#include <stdint.h>

#include "tinypeft/tp_clock.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))

#define PWR_CR2 REGISTER(0x40007004u)
#define RCC_CR REGISTER(0x40021000u)
#define RCC_CFGR REGISTER(0x40021008u)
#define RCC_APB1ENR1 REGISTER(0x40021058u)
#define FLASH_ACR REGISTER(0x40022000u)

#define CR2_IOSV (1u << 9)
#define CR_HSION (1u << 8)
#define CR_HSIRDY (1u << 10)
#define CFGR_SW_HSI16 1u
#define CFGR_SWS_HSI16 (1u << 2)
#define APB1ENR1_PWREN (1u << 28)
#define ACR_LATENCY 0xFu
/* Enough for 16 MHz in voltage range 2, the one after reset (RM0438, table of wait states). */
#define WAIT_STATES 2u

/* HSI16 starts in a few microseconds. The wait has an end all the same: emulators lack the flag. */
#define WAIT_LIMIT 10000u

static void wait_for(volatile uint32_t *address, uint32_t mask) {
  for (uint32_t i = 0; i < WAIT_LIMIT && (*address & mask) == 0; i++) {
  }
}

void tp_clock_init(void) {
  FLASH_ACR = (FLASH_ACR & ~ACR_LATENCY) | WAIT_STATES;
  (void)FLASH_ACR; /* read back, so that they hold before the clock rises */
  RCC_CR |= CR_HSION;
  wait_for(&RCC_CR, CR_HSIRDY);
  RCC_CFGR = (RCC_CFGR & ~3u) | CFGR_SW_HSI16;
  wait_for(&RCC_CFGR, CFGR_SWS_HSI16);
  RCC_APB1ENR1 |= APB1ENR1_PWREN;
  (void)RCC_APB1ENR1;
  PWR_CR2 |= CR2_IOSV;
}
