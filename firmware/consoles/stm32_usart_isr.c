/* USART and LPUART of the newer STM32, F0, F3, F7, G, H7, L0, L4, L5 (RM0385, RM0433, RM0438): status in ISR, data in
 * RDR and TDR; 16x oversampling. The kernel clock is TP_BOARD_CLOCK_HZ: no prescaler and the bus as source, as after
 * reset. TP_CONSOLE_BAUD_SCALE is 1 for a USART, 256 for an LPUART. */
#include "tinypeft/tp_console.h"
#include "tinypeft/tp_stm32_gpio.h"
#include "tp_board_config.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))

#define USART_CR1 REGISTER(TP_CONSOLE_BASE + 0x00u)
#define USART_CR2 REGISTER(TP_CONSOLE_BASE + 0x04u)
#define USART_CR3 REGISTER(TP_CONSOLE_BASE + 0x08u)
#define USART_BRR REGISTER(TP_CONSOLE_BASE + 0x0Cu)
#define USART_ISR REGISTER(TP_CONSOLE_BASE + 0x1Cu)
#define USART_RDR REGISTER(TP_CONSOLE_BASE + 0x24u)
#define USART_TDR REGISTER(TP_CONSOLE_BASE + 0x28u)

#define CR1_UE (1u << 0)
#define CR1_RE (1u << 2)
#define CR1_TE (1u << 3)
#define CR3_OVRDIS (1u << 12)
#define ISR_RXNE (1u << 5)
#define ISR_TC (1u << 6)
#define ISR_TXE (1u << 7)

#define DIVIDER ((TP_CONSOLE_BAUD_SCALE * (uint64_t)TP_BOARD_CLOCK_HZ + TP_CONSOLE_BAUD / 2u) / TP_CONSOLE_BAUD)
_Static_assert(TP_CONSOLE_BAUD_SCALE == 1u ? DIVIDER >= 16u && DIVIDER <= 0xFFFFu
                                           : DIVIDER >= 0x300u && DIVIDER <= 0xFFFFFu,
               "the clock is too slow or too fast for this baud rate");

void tp_console_init(void) {
  tp_stm32_enable(TP_CONSOLE_GPIO_ENABLE_REGISTER, TP_CONSOLE_GPIO_ENABLE_MASK);
  tp_stm32_enable(TP_CONSOLE_ENABLE_REGISTER, TP_CONSOLE_ENABLE_MASK);
  tp_stm32_connect_pin(TP_CONSOLE_TX_GPIO, TP_CONSOLE_TX_PIN, TP_CONSOLE_ALTERNATE_FUNCTION);
  tp_stm32_connect_pin(TP_CONSOLE_RX_GPIO, TP_CONSOLE_RX_PIN, TP_CONSOLE_ALTERNATE_FUNCTION);
  USART_CR1 = 0;
  USART_CR2 = 0;
  USART_CR3 = CR3_OVRDIS; /* an overrun must not have to be cleared; the frame's checksum tells of the lost byte */
  USART_BRR = (uint32_t)DIVIDER;
  USART_CR1 = CR1_UE | CR1_TE | CR1_RE;
}

uint8_t tp_console_read(void) {
  while ((USART_ISR & ISR_RXNE) == 0) {
  }
  return (uint8_t)(USART_RDR & 0xFFu);
}

void tp_console_write(uint8_t byte) {
  while ((USART_ISR & ISR_TXE) == 0) {
  }
  USART_TDR = byte;
}

void tp_console_flush(void) {
  while ((USART_ISR & ISR_TC) == 0) {
  }
}
