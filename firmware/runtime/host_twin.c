#include "tinypeft/tp_twin.h"

#include <string.h>

#include "tinypeft/tp_device.h"
#include "tinypeft/tp_server.h"

typedef struct {
  uint8_t *bytes;
  size_t capacity;
  size_t used;
  int overflow;
} collector;

static tp_server server;
static collector output;

static void collect(void *context, const uint8_t *data, uint32_t length) {
  collector *out = context;
  if (length > out->capacity - out->used) {
    out->overflow = 1;
    return;
  }
  memcpy(out->bytes + out->used, data, length);
  out->used += length;
}

static void reset(void *context) {
  (void)context;
  (void)tp_twin_init();
}

tp_status tp_twin_init(void) {
  static const tp_server_config config = {
      .context = &output, .write = collect, .reset = reset, .board = "host", .processor = "host"};
  const tp_status status = tp_device_init();
  tp_server_init(&server, &tp_device_model, &config, status);
#ifdef TP_STORE
  tp_status stored; /* LIST tells */
  server.adapters = status == TP_OK ? tp_device_adapters(&stored) : NULL;
#endif
  return status;
}

size_t tp_twin_exchange(const uint8_t *request, size_t length, uint8_t *response, size_t capacity) {
  output = (collector){.bytes = response, .capacity = capacity};
  for (size_t i = 0; i < length; i++) {
    tp_server_receive(&server, request[i]);
  }
  return output.overflow ? TP_TWIN_OVERFLOW : output.used;
}
