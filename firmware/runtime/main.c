/* The firmware: the command server on the board's console. */
#include <string.h>

#include "tinypeft/tp_board.h"
#include "tinypeft/tp_device.h"
#include "tinypeft/tp_server.h"

static tp_server server;

static void console_write(void *context, const uint8_t *data, uint32_t length) {
  (void)context;
  tp_board_write(data, length);
}

static uint32_t stack_bytes(void *context) {
  (void)context;
  return tp_board_stack_bytes();
}

static uint32_t stack_high_water(void *context) {
  (void)context;
  return tp_board_stack_high_water();
}

static void reset(void *context) {
  (void)context;
  tp_board_reset();
}

static void print(const char *text) { tp_board_write((const uint8_t *)text, (uint32_t)strlen(text)); }

int main(void) {
  static const tp_server_config config = {
      .write = console_write,
      .stack_bytes = stack_bytes,
      .stack_high_water = stack_high_water,
      .reset = reset,
      .version = tp_board_version,
      .board = tp_board_name,
      .processor = tp_board_core,
  };
  tp_board_init();
  const tp_status status = tp_device_init();
  tp_server_init(&server, &tp_device_model, &config, status);
#ifdef TP_STORE
  tp_status stored = TP_OK;
  server.adapters = status == TP_OK ? tp_device_adapters(&stored) : NULL;
#endif

  /* One line for a person at a terminal; a host skips it in search of a packet. */
  print("tinypeft ");
  print(tp_device_model.name);
  print(status == TP_OK ? " ready" : " failed: ");
  print(status == TP_OK ? "" : tp_status_text(status));
#ifdef TP_STORE
  if (stored != TP_OK) {
    print(", adapters: ");
    print(tp_status_text(stored));
  }
#endif
  print("\r\n");

  for (;;) {
    tp_server_receive(&server, tp_board_read());
  }
}
