/* Arm PL011 (DDI 0183) with the pins of the RP2040 (RP2040 Datasheet, GPIO: User Bank IO); its clock is
 * TP_BOARD_CLOCK_HZ. The clock driver has taken UART and pins out of reset. */
#include "tinypeft/tp_console.h"
#include "tp_board_config.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))

#define UART_DR REGISTER(TP_CONSOLE_BASE + 0x00u)
#define UART_FR REGISTER(TP_CONSOLE_BASE + 0x18u)
#define UART_IBRD REGISTER(TP_CONSOLE_BASE + 0x24u)
#define UART_FBRD REGISTER(TP_CONSOLE_BASE + 0x28u)
#define UART_LCR_H REGISTER(TP_CONSOLE_BASE + 0x2Cu)
#define UART_CR REGISTER(TP_CONSOLE_BASE + 0x30u)

#define FR_BUSY (1u << 3)
#define FR_RXFE (1u << 4)
#define FR_TXFF (1u << 5)
#define LCR_H_FEN (1u << 4)
#define LCR_H_8_BITS (3u << 5)
#define CR_UARTEN (1u << 0)
#define CR_TXE (1u << 8)
#define CR_RXE (1u << 9)

#define IO_FUNCTION(pin) REGISTER(TP_CONSOLE_IO_BANK + 8u * (pin) + 4u)
#define PAD(pin) REGISTER(TP_CONSOLE_PADS_BANK + 4u * (pin) + 4u)
#define PAD_PULL_DOWN (1u << 2)
#define PAD_PULL_UP (1u << 3)
#define PAD_INPUT (1u << 6)

/* In 1/64 of the clock's sixteenth part. */
#define DIVIDER ((4u * TP_BOARD_CLOCK_HZ + TP_CONSOLE_BAUD / 2u) / TP_CONSOLE_BAUD)
_Static_assert(TP_BOARD_CLOCK_HZ < 1u << 30 && DIVIDER >= 64u && DIVIDER < 64u << 16, "no divider for this baud rate");

void tp_console_init(void) {
  PAD(TP_CONSOLE_RX_PIN) = (PAD(TP_CONSOLE_RX_PIN) & ~PAD_PULL_DOWN) | PAD_PULL_UP | PAD_INPUT;
  IO_FUNCTION(TP_CONSOLE_TX_PIN) = TP_CONSOLE_PIN_FUNCTION;
  IO_FUNCTION(TP_CONSOLE_RX_PIN) = TP_CONSOLE_PIN_FUNCTION;
  UART_CR = 0;
  UART_IBRD = DIVIDER / 64u;
  UART_FBRD = DIVIDER % 64u;
  UART_LCR_H = LCR_H_8_BITS | LCR_H_FEN; /* takes the dividers over */
  UART_CR = CR_UARTEN | CR_TXE | CR_RXE;
}

uint8_t tp_console_read(void) {
  while ((UART_FR & FR_RXFE) != 0) {
  }
  return (uint8_t)(UART_DR & 0xFFu);
}

void tp_console_write(uint8_t byte) {
  while ((UART_FR & FR_TXFF) != 0) {
  }
  UART_DR = byte;
}

void tp_console_flush(void) {
  while ((UART_FR & FR_BUSY) != 0) {
  }
}
