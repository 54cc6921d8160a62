/* UARTE of nRF52 (nRF52840 Product Specification, UARTE): DMA of one byte at a time to and from RAM, no flow control.
 *
 * No byte is lost between two DMA transfers: nothing stops the receiver, TASKS_STOPRX is never used, and what arrives
 * meanwhile waits in the receiver's FIFO until TASKS_STARTRX. There is a byte every 87 us at 115,200 baud, while the
 * server needs a few for each. */
#include "tinypeft/tp_console.h"
#include "tinypeft/tp_nrf_gpio.h"
#include "tp_board_config.h"

#define REGISTER(offset) (*(volatile uint32_t *)(TP_CONSOLE_BASE + (offset)))

#define TASKS_STARTRX REGISTER(0x000u)
#define TASKS_STARTTX REGISTER(0x008u)
#define EVENTS_ENDRX REGISTER(0x110u)
#define EVENTS_ENDTX REGISTER(0x120u)
#define ENABLE REGISTER(0x500u)
#define PSEL_TXD REGISTER(0x50Cu)
#define PSEL_RXD REGISTER(0x514u)
#define BAUDRATE REGISTER(0x524u)
#define RXD_PTR REGISTER(0x534u)
#define RXD_MAXCNT REGISTER(0x538u)
#define TXD_PTR REGISTER(0x544u)
#define TXD_MAXCNT REGISTER(0x548u)
#define CONFIG REGISTER(0x56Cu)

#define ENABLE_UARTE 8u

/* The DMA reads and writes RAM only. */
static volatile uint8_t received, sent;

void tp_console_init(void) {
  tp_nrf_uart_pins(TP_CONSOLE_TX_PIN, TP_CONSOLE_RX_PIN);
  PSEL_TXD = TP_CONSOLE_TX_PIN;
  PSEL_RXD = TP_CONSOLE_RX_PIN;
  BAUDRATE = TP_CONSOLE_BAUD_REGISTER;
  CONFIG = 0;
  ENABLE = ENABLE_UARTE;
  RXD_PTR = (uint32_t)&received;
  RXD_MAXCNT = 1;
  TXD_PTR = (uint32_t)&sent;
  TXD_MAXCNT = 1;
  EVENTS_ENDRX = 0;
  TASKS_STARTRX = 1;
}

uint8_t tp_console_read(void) {
  while (EVENTS_ENDRX == 0) {
  }
  const uint8_t byte = received;
  EVENTS_ENDRX = 0; /* before the next transfer, which may end at once */
  TASKS_STARTRX = 1;
  return byte;
}

void tp_console_write(uint8_t byte) {
  sent = byte;
  EVENTS_ENDTX = 0;
  TASKS_STARTTX = 1;
  while (EVENTS_ENDTX == 0) {
  }
}

/* EVENTS_ENDTX, for which every write waits, comes when the byte has been sent. */
void tp_console_flush(void) {}
