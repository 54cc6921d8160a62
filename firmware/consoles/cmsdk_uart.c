/* APB UART of Arm's Cortex-M System Design Kit (DDI 0479, section 4.3), as on the MPS2 boards. */
#include "tinypeft/tp_console.h"
#include "tp_board_config.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))

#define UART_DATA REGISTER(TP_CONSOLE_BASE + 0x00u)
#define UART_STATE REGISTER(TP_CONSOLE_BASE + 0x04u)
#define UART_CTRL REGISTER(TP_CONSOLE_BASE + 0x08u)
#define UART_BAUDDIV REGISTER(TP_CONSOLE_BASE + 0x10u)

#define STATE_TX_FULL (1u << 0)
#define STATE_RX_FULL (1u << 1)
#define CTRL_TX_ENABLE (1u << 0)
#define CTRL_RX_ENABLE (1u << 1)

_Static_assert(TP_BOARD_CLOCK_HZ / TP_CONSOLE_BAUD >= 16u, "the divider of the UART is at least 16");

void tp_console_init(void) {
  UART_CTRL = 0;
  UART_BAUDDIV = (TP_BOARD_CLOCK_HZ + TP_CONSOLE_BAUD / 2u) / TP_CONSOLE_BAUD;
  UART_CTRL = CTRL_TX_ENABLE | CTRL_RX_ENABLE;
}

uint8_t tp_console_read(void) {
  while ((UART_STATE & STATE_RX_FULL) == 0) {
  }
  return (uint8_t)(UART_DATA & 0xFFu);
}

void tp_console_write(uint8_t byte) {
  while ((UART_STATE & STATE_TX_FULL) != 0) {
  }
  UART_DATA = byte;
}

void tp_console_flush(void) {
  while ((UART_STATE & STATE_TX_FULL) != 0) {
  }
  /* No register tells that the shift register is empty: a start bit, eight of data and two of stop, a clock a round. */
  const uint32_t clocks = 11u * UART_BAUDDIV;
  for (volatile uint32_t clock = 0; clock < clocks; clock++) {
  }
}
