/* USART of STM32F2, F4 and L1 (RM0090, section 30): status in SR, data in DR; 16x oversampling.
 * The bus clock of the USART is TP_BOARD_CLOCK_HZ: no prescaler after reset. */
#include "tinypeft/tp_console.h"
#include "tinypeft/tp_stm32_gpio.h"
#include "tp_board_config.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))

#define USART_SR REGISTER(TP_CONSOLE_BASE + 0x00u)
#define USART_DR REGISTER(TP_CONSOLE_BASE + 0x04u)
#define USART_BRR REGISTER(TP_CONSOLE_BASE + 0x08u)
#define USART_CR1 REGISTER(TP_CONSOLE_BASE + 0x0Cu)
#define USART_CR2 REGISTER(TP_CONSOLE_BASE + 0x10u)
#define USART_CR3 REGISTER(TP_CONSOLE_BASE + 0x14u)

#define SR_RXNE (1u << 5)
#define SR_TC (1u << 6)
#define SR_TXE (1u << 7)
#define CR1_RE (1u << 2)
#define CR1_TE (1u << 3)
#define CR1_UE (1u << 13)

void tp_console_init(void) {
  tp_stm32_enable(TP_CONSOLE_GPIO_ENABLE_REGISTER, TP_CONSOLE_GPIO_ENABLE_MASK);
  tp_stm32_enable(TP_CONSOLE_ENABLE_REGISTER, TP_CONSOLE_ENABLE_MASK);
  tp_stm32_connect_pin(TP_CONSOLE_TX_GPIO, TP_CONSOLE_TX_PIN, TP_CONSOLE_ALTERNATE_FUNCTION);
  tp_stm32_connect_pin(TP_CONSOLE_RX_GPIO, TP_CONSOLE_RX_PIN, TP_CONSOLE_ALTERNATE_FUNCTION);
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

void tp_console_flush(void) {
  while ((USART_SR & SR_TC) == 0) {
  }
}
