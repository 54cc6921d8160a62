/* UART of nRF51 (nRF51 Series Reference Manual, UART): byte by byte, six bytes of receive buffer, no flow control. */
#include "tinypeft/tp_console.h"
#include "tinypeft/tp_nrf_gpio.h"
#include "tp_board_config.h"

#define REGISTER(offset) (*(volatile uint32_t *)(TP_CONSOLE_BASE + (offset)))

#define TASKS_STARTRX REGISTER(0x000u)
#define TASKS_STARTTX REGISTER(0x008u)
#define EVENTS_RXDRDY REGISTER(0x108u)
#define EVENTS_TXDRDY REGISTER(0x11Cu)
#define ENABLE REGISTER(0x500u)
#define PSELTXD REGISTER(0x50Cu)
#define PSELRXD REGISTER(0x514u)
#define RXD REGISTER(0x518u)
#define TXD REGISTER(0x51Cu)
#define BAUDRATE REGISTER(0x524u)
#define CONFIG REGISTER(0x56Cu)

#define ENABLE_UART 4u

void tp_console_init(void) {
  tp_nrf_uart_pins(TP_CONSOLE_TX_PIN, TP_CONSOLE_RX_PIN);
  PSELTXD = TP_CONSOLE_TX_PIN;
  PSELRXD = TP_CONSOLE_RX_PIN;
  BAUDRATE = TP_CONSOLE_BAUD_REGISTER;
  CONFIG = 0;
  ENABLE = ENABLE_UART;
  EVENTS_RXDRDY = 0;
  TASKS_STARTTX = 1;
  TASKS_STARTRX = 1;
}

uint8_t tp_console_read(void) {
  while (EVENTS_RXDRDY == 0) {
  }
  /* The event is cleared before the byte is taken: taking it may raise the event of the next one. */
  EVENTS_RXDRDY = 0;
  return (uint8_t)(RXD & 0xFFu);
}

void tp_console_write(uint8_t byte) {
  EVENTS_TXDRDY = 0;
  TXD = byte;
  while (EVENTS_TXDRDY == 0) {
  }
}

/* EVENTS_TXDRDY, for which every write waits, comes when the byte has been sent. */
void tp_console_flush(void) {}
