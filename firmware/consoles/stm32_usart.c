/* USART of STM32F1, F2, F4 and L1 (RM0090, section 30) with GPIO of F2, F4 and L1 (section 8), 16x oversampling.
 * The bus clock of the USART is TP_BOARD_CLOCK_HZ: no prescaler after reset. */
#include "tinypeft/tp_console.h"
#include "tp_board_config.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))

#define USART_SR REGISTER(TP_CONSOLE_BASE + 0x00u)
#define USART_DR REGISTER(TP_CONSOLE_BASE + 0x04u)
#define USART_BRR REGISTER(TP_CONSOLE_BASE + 0x08u)
#define USART_CR1 REGISTER(TP_CONSOLE_BASE + 0x0Cu)
#define USART_CR2 REGISTER(TP_CONSOLE_BASE + 0x10u)
#define USART_CR3 REGISTER(TP_CONSOLE_BASE + 0x14u)

#define SR_RXNE (1u << 5)
#define SR_TXE (1u << 7)
#define CR1_RE (1u << 2)
#define CR1_TE (1u << 3)
#define CR1_UE (1u << 13)

#define GPIO_MODER REGISTER(TP_CONSOLE_GPIO_BASE + 0x00u)
#define GPIO_PUPDR REGISTER(TP_CONSOLE_GPIO_BASE + 0x0Cu)
#define GPIO_AFR(pin) REGISTER(TP_CONSOLE_GPIO_BASE + 0x20u + 4u * ((pin) / 8u))

#define MODE_ALTERNATE 2u
#define PULL_UP 1u

/* Read back, so that the clock runs before the peripheral is touched. */
static void enable_clock(uint32_t address, uint32_t bit) {
  REGISTER(address) |= 1u << bit;
  (void)REGISTER(address);
}

static void set_field(volatile uint32_t *address, uint32_t position, uint32_t mask, uint32_t value) {
  *address = (*address & ~(mask << position)) | (value << position);
}

static void connect_pin(uint32_t pin) {
  set_field(&GPIO_AFR(pin), 4u * (pin % 8u), 0xFu, TP_CONSOLE_ALTERNATE_FUNCTION);
  set_field(&GPIO_PUPDR, 2u * pin, 3u, PULL_UP);
  set_field(&GPIO_MODER, 2u * pin, 3u, MODE_ALTERNATE);
}

void tp_console_init(void) {
  enable_clock(TP_CONSOLE_GPIO_ENABLE_REGISTER, TP_CONSOLE_GPIO_ENABLE_BIT);
  enable_clock(TP_CONSOLE_ENABLE_REGISTER, TP_CONSOLE_ENABLE_BIT);
  connect_pin(TP_CONSOLE_TX_PIN);
  connect_pin(TP_CONSOLE_RX_PIN);
  USART_CR1 = 0;
  USART_CR2 = 0;
  USART_CR3 = 0;
  USART_BRR = (TP_BOARD_CLOCK_HZ + TP_CONSOLE_BAUD / 2u) / TP_CONSOLE_BAUD;
  USART_CR1 = CR1_UE | CR1_TE | CR1_RE;
}

uint8_t tp_console_read(void) {
  /* Reading SR, then DR also clears an overrun; the frame's checksum tells of the lost byte. */
  while ((USART_SR & SR_RXNE) == 0) {
  }
  return (uint8_t)(USART_DR & 0xFFu);
}

void tp_console_write(uint8_t byte) {
  while ((USART_SR & SR_TXE) == 0) {
  }
  USART_DR = byte;
}
