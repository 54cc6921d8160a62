#include "smp_device.h"

#include <sanitizer/asan_interface.h>
#include <string.h>

#include "tinypeft/tp_device.h"

#define SECTOR 512u
#define SECTORS 7u
#define FLASH_BYTES (SECTOR * SECTORS)
#define EPOCHS_MAX 2u

int LLVMFuzzerInitialize(int *argc, char ***argv);
void fake_gaps(void (*each)(const volatile void *gap, size_t bytes));

smp_device device;
static uint8_t flash_bytes[FLASH_BYTES], starts[STARTS][FLASH_BYTES];

/* The platform and the line */

static tp_status count(void *context, uint32_t least, uint32_t *value) {
  (void)context;
  device.counter = least > device.counter ? least : device.counter;
  *value = device.counter;
  return TP_OK;
}

static tp_status derive(void *context, const char *purpose, uint8_t *key, uint32_t length) {
  (void)context;
  memset(key, purpose[0], length);
  return TP_OK;
}

static int fault(void) { return device.fault_in > 0 && --device.fault_in == 0; }

static tp_status prog(void *context, uint32_t offset, const void *data, uint32_t length) {
  return fault() ? TP_ERR_FLASH : device.prog(context, offset, data, length);
}

static tp_status erase(void *context, uint32_t sector) {
  return fault() ? TP_ERR_FLASH : device.erase(context, sector);
}

static tp_status (*export_fake)(void *self, const tp_package_identity *identity, uint8_t *package, uint32_t capacity);

static tp_status export_counted(void *self, const tp_package_identity *identity, uint8_t *package, uint32_t capacity) {
  device.saved += identity != NULL ? 1u : 0u;
  return export_fake(self, identity, package, capacity);
}

/* Thousands of epochs are no finding. */
static tp_status fit_shortly(tp_server *server, const tp_request *request) {
  const int is_short = tp_request_u32(request, TP_KEY_EPOCHS, 0) <= EPOCHS_MAX;
  return is_short ? tp_device_model.fit(server, request) : TP_ERR_ARGUMENT;
}

static void listen(void *context, const uint8_t *data, uint32_t length) {
  (void)context;
  require(length > 0 && length <= TP_LINE_MAX && data[length - 1u] == '\n', "the server sends lines");
  for (uint32_t i = 0; i < length; i++) {
    uint32_t bytes = 0;
    const uint8_t *message = tp_frame_push(&device.line, data[i], &bytes);
    if (message != NULL) {
      const tp_message_header header = tp_message_header_read(message);
      tp_cbor_reader reader = {.data = message + TP_MESSAGE_HEADER, .length = bytes - TP_MESSAGE_HEADER};
      require(header.length == reader.length && (header.op & 1u) != 0, "the header of a response");
      require(tp_cbor_skip(&reader) && reader.at == reader.length, "a response is one item of CBOR");
      memcpy(device.last, message, bytes);
      device.last_bytes = bytes;
      device.answers++;
    }
  }
  require(device.line.dropped == 0, "the server sends whole packets");
}

static void reset(void *context) {
  (void)context;
  start();
}

static void close_gap(const volatile void *gap, size_t bytes) { __asan_poison_memory_region(gap, bytes); }
static void open_gap(const volatile void *gap, size_t bytes) { __asan_unpoison_memory_region(gap, bytes); }

void start(void) {
  fake_gaps(open_gap);
  require(tp_device_init() == TP_OK, "the model starts");
  fake_gaps(close_gap);
  device.model = tp_device_model;
  export_fake = device.model.export_adapter;
  device.model.export_adapter = export_counted;
  device.model.fit = fit_shortly;
  device.model.input_bytes += PLANTED_BYTES;
  device.fault_in = 0;
  const tp_store_config config = {&device.memory.flash, 2, SLOT_BYTES, 2};
  tp_status status = tp_store_mount(&device.store, &config, NULL);
  require(status == TP_OK, "the store mounts");
  tp_store *store = device.with_store ? &device.store : NULL;
  status = tp_adapters_init(&device.adapters, &device.model, store, &device.security);
  require(status == TP_OK, "what is active serves");
  static const tp_server_config server = {.write = listen, .reset = reset, .board = "fuzz"};
  tp_server_init(&device.server, &device.model, &server, TP_OK);
  device.server.adapters = &device.adapters;
  tp_frame_init(&device.line);
}

/* Packages */

uint32_t make_package(uint8_t *package, const char *id, uint32_t version, uint32_t counter, uint32_t rank,
                      uint32_t flags, uint32_t fill) {
  const tp_package_info *info = device.model.package_info;
  tp_package_identity identity = {.version = version, .counter = counter};
  memcpy(identity.id, id, tp_id_length(id));
  const uint32_t bytes = put_package_header(package, info, &identity, rank, flags);
  for (uint32_t i = TP_PACKAGE_HEADER_BYTES; i < bytes; i++) {
    package[i] = (uint8_t)(fill * 37u + i % 5u * fill);
  }
  seal_package(package, bytes, SEAL_ALL);
  return bytes;
}

static void serve(const char *id, uint32_t version, int confirms) {
  uint8_t package[SLOT_BYTES];
  const uint32_t bytes = make_package(package, id, version, 1u, 1u + version % 2u, TP_PACKAGE_SIGNED, version);
  require(tp_adapters_upload_begin(&device.adapters, id, bytes) == TP_OK, "an upload begins");
  require(tp_adapters_upload(&device.adapters, package, bytes) == TP_OK, "a package is taken");
  require(tp_adapters_activate(&device.adapters, id) == TP_OK, "it serves");
  require(!confirms || tp_adapters_confirm(&device.adapters, id) == TP_OK, "it stays");
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc, (void)argv;
  for (uint32_t i = 0; i < STARTS; i++) {
    memset(flash_bytes, 0xFF, sizeof flash_bytes);
    tp_flash_memory_init(&device.memory, flash_bytes, SECTOR, SECTORS, 8, 0xFF);
    device.prog = device.memory.flash.prog;
    device.erase = device.memory.flash.erase;
    device.memory.flash.prog = prog;
    device.memory.flash.erase = erase;
    device.security = (tp_security){.verify_sig = verify_fake_signature};
    device.with_store = 1;
    start();
    if (i >= 1) {
      serve("a", 1, 1);
    }
    if (i >= 2) {
      serve("b", 3, 0);
      serve("a", 2, 0);
    }
    if (i >= 3) {
      require(tp_adapters_train(&device.adapters) == TP_OK, "it trains");
      require(tp_adapters_checkpoint(&device.adapters, "a", 7) == TP_OK, "a checkpoint");
      require(tp_adapters_activate(&device.adapters, NULL) == TP_OK, "the base model");
    }
    memcpy(starts[i], flash_bytes, sizeof flash_bytes);
  }
  return 0;
}

void begin_with(uint32_t number, int with_store, int with_key) {
  memcpy(flash_bytes, starts[number], sizeof flash_bytes);
  device.with_store = with_store;
  device.security = (tp_security){0};
  if (with_key) {
    device.security = (tp_security){
        .verify_sig = verify_fake_signature, .monotonic_counter = count, .key_derive = derive};
  }
  device.counter = 0;
  device.saved = 0;
  start();
}

/* What must hold */

static tp_status read_entry(void *context, uint32_t offset, void *data, uint32_t length) {
  const tp_store_entry *const *at = context;
  const tp_store_entry *entry = at[0];
  const tp_store_part part = at[1] == NULL ? TP_STORE_CONFIRMED : TP_STORE_CANDIDATE;
  return tp_store_read(&device.store, entry, part, offset, data, length);
}

static void check_package(const tp_store_entry *entry, tp_store_part part) {
  static guarded memories;
  const tp_store_entry *context[2] = {entry, part == TP_STORE_CONFIRMED ? NULL : entry};
  const tp_security *security = device.saved == 0 ? &device.security : NULL;
  tp_package_header header;
  tp_adapters_package described;
  const tp_package_info *info = device.model.package_info;
  require(tp_package_verify(info, read_entry, context, entry->bytes[part], security, &header) == TP_OK,
          "what the store lists is whole and authentic");
  require(tp_id_same(header.identity.id, entry->id) && header.identity.version == entry->version[part],
          "and is what it says");
  require(header.identity.counter >= entry->counter, "and is not older than allowed");
  require(tp_adapters_describe(&device.adapters, entry, part, &described) == TP_OK, "it can be described");
  for (uint32_t i = 0; i < TP_RESIDENT; i++) {
    const tp_resident *resident = &device.adapters.residents[i];
    if (tp_id_same(resident->id, entry->id) && resident->part == part && resident->version == entry->version[part] &&
        !resident->changed) {
      uint8_t *expected = guard(&memories, device.model.adapter_bytes);
      require(tp_package_load(info, read_entry, context, &header, expected) == TP_OK, "it loads");
      require(memcmp(expected, device.model.resident(device.model.self, i), device.model.adapter_bytes) == 0,
              "what is in memory is what the store has");
    }
  }
}

void check_device(void) {
  const uint32_t serving = device.adapters.serving;
  const void *adapter = device.model.adapter(device.model.self);
  require(serving < TP_RESIDENT || serving == TP_ADAPTERS_BASE, "what serves is in memory");
  require(serving == TP_ADAPTERS_BASE || adapter == device.model.resident(device.model.self, serving), "and runs");
  for (uint32_t i = 0; device.with_store && i < tp_store_count(&device.store); i++) {
    const tp_store_entry *entry = tp_store_entry_at(&device.store, i);
    for (uint32_t part = TP_STORE_CONFIRMED; part <= TP_STORE_CANDIDATE; part++) {
      if (entry->slot[part] != TP_STORE_NO_SLOT) {
        check_package(entry, (tp_store_part)part);
      }
    }
  }
}
