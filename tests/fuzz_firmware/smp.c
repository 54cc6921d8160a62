/* A server with every group and a store behind it: bytes on the line, requests around the input's CBOR, requests of
 * known keys, uploads in pieces of packages and deltas, faults of the flash. After each input the server still answers,
 * what the store lists is whole and authentic, and what is in memory is what the store says. */
#include <string.h>

#include "smp_device.h"
#include "tinypeft/tp_crc.h"
#include "tinypeft/tp_group_adapters.h"

#define REQUESTS_MAX 12u
/* Longer than any packet that fits. */
#define PACKET_BYTES_MAX (TP_MESSAGE_MAX + 80u)

enum { NO_STORE = 1, KEY = 2 };
enum { LINE, MESSAGE, KEYS, BEGIN_UPLOAD, GO_ON, FAULT, PACKET, KINDS };

static const char *const ids[] = {"a", "b", "c", "d-1", "fifteen.letters", "", "Wrong", "sixteen.letters."};
static const uint16_t groups[] = {TP_GROUP_OS, TP_GROUP_IMAGES, TP_GROUP_FILES, TP_GROUP_MODEL, TP_GROUP_ADAPTERS};

/* An upload under way, as a host has it. */
static struct {
  uint8_t bytes[1024];
  uint32_t length, declared, at;
  char id[TP_ID_BYTES + 1u];
  int as_file;
} upload;

/* What a host sends */

static void hear(void *context, const uint8_t *data, uint32_t length) {
  (void)context;
  for (uint32_t i = 0; i < length; i++) {
    tp_server_receive(&device.server, data[i]);
  }
}

static void send(uint8_t op, uint16_t group, uint8_t command, const tp_cbor_writer *payload, uint32_t length) {
  uint8_t message[TP_MESSAGE_MAX];
  const tp_message_header header = {.op = op, .length = (uint16_t)length, .group = group, .command = command};
  tp_message_header_write(message, &header);
  memcpy(message + TP_MESSAGE_HEADER, payload->data, payload->used);
  tp_frame_send(message, TP_MESSAGE_HEADER + payload->used, hear, NULL);
}

static void put_text(tp_cbor_writer *writer, const char *key, const char *text) {
  tp_cbor_write_string(writer, TP_CBOR_TEXT, key, (uint32_t)strlen(key));
  tp_cbor_write_string(writer, TP_CBOR_TEXT, text, (uint32_t)strlen(text));
}

static void put_number(tp_cbor_writer *writer, const char *key, uint32_t value) {
  tp_cbor_write_string(writer, TP_CBOR_TEXT, key, (uint32_t)strlen(key));
  tp_cbor_write_integer(writer, value);
}

static void put_bytes(tp_cbor_writer *writer, const char *key, const uint8_t *bytes, uint32_t length) {
  tp_cbor_write_string(writer, TP_CBOR_TEXT, key, (uint32_t)strlen(key));
  tp_cbor_write_string(writer, TP_CBOR_BYTES, bytes, length);
}

static void send_line(fuzz_input *input) {
  uint32_t length = take_u8(input);
  const uint8_t *bytes = take_bytes(input, &length);
  hear(NULL, bytes, length);
}

/* Where a request goes: op with its version, group, command; mostly to what there is. */
typedef struct {
  uint8_t op, command;
  uint16_t group;
} address;

static address take_address(fuzz_input *input) {
  const uint32_t choice = take_u8(input), command = take_u8(input);
  address to = {.op = (uint8_t)((choice & 1u) != 0 ? TP_OP_WRITE : TP_OP_READ), .command = (uint8_t)(command & 15u)};
  to.op = (uint8_t)(to.op | (choice >> 1 & 1u) << 3);
  to.group = groups[(choice >> 2) % 5u];
  if (choice >= 250u) {
    to.op = (uint8_t)take_u8(input);
    to.group = (uint16_t)take_u16(input);
    to.command = (uint8_t)command;
  }
  return to;
}

static void send_message(fuzz_input *input) {
  uint8_t bytes[TP_MAX_PAYLOAD];
  const address to = take_address(input);
  uint32_t length = take_u16(input);
  const uint32_t wrong = length >= 0xF000u ? length & 0xFFu : 0; /* the header says more than there is */
  length %= TP_MAX_PAYLOAD + 1u;
  const uint8_t *from = take_bytes(input, &length);
  if (length > 0) {
    memcpy(bytes, from, length);
  }
  const tp_cbor_writer payload = {.data = bytes, .capacity = sizeof bytes, .used = (uint16_t)length};
  send(to.op, to.group, to.command, &payload, (uint16_t)(length + wrong));
}

static const char *const key_names[] = {
#define NAME(index, name, type) name,
    TP_KEY_TABLE(NAME)};
static const uint8_t key_types[] = {
#define TYPE(index, name, type) TP_TYPE_##type,
    TP_KEY_TABLE(TYPE)};

/* The text of a key as it should be, or nearly. */
static void put_key_text(tp_cbor_writer *writer, uint32_t key, uint32_t choice) {
  static const char *const words[] = {"a", "m", "sha256", "crc32", "o", "n", "x", "p"};
  char text[2u * 255u + 1u] = "";
  uint32_t length = 0;
  if (key == TP_KEY_ECHO) {
    length = 2u * choice;
    memset(text, 'x', length);
  } else {
    const char *word = key == TP_KEY_TYPE || key == TP_KEY_FORMAT ? words[choice % 8u] : ids[choice % 8u];
    const uint32_t folder = (key == TP_KEY_NAME) == (choice < 240u) ? 9u : 0u;
    memcpy(text, "/adapter/", folder);
    length = folder + (uint32_t)strlen(word);
    memcpy(text + folder, word, strlen(word));
  }
  tp_cbor_write_string(writer, TP_CBOR_TEXT, text, length);
}

/* The digest of what the store has, or other bytes. */
static void put_key_bytes(tp_cbor_writer *writer, uint32_t key, uint32_t choice, fuzz_input *input) {
  uint8_t bytes[64] = {0};
  uint32_t length = choice % 64u;
  const uint8_t *from = take_bytes(input, &length);
  if (length > 0) {
    memcpy(bytes, from, length);
  }
  length = choice % 64u;
  tp_adapters_package package;
  const tp_store_entry *entry =
      key == TP_KEY_HASH && device.with_store ? tp_store_entry_at(&device.store, choice % 2u) : NULL;
  const tp_store_part part = (choice & 2u) != 0 ? TP_STORE_CANDIDATE : TP_STORE_CONFIRMED;
  if (entry != NULL && tp_adapters_describe(&device.adapters, entry, part, &package) == TP_OK) {
    length = TP_DIGEST_BYTES;
    memcpy(bytes, package.digest, length);
  }
  tp_cbor_write_string(writer, TP_CBOR_BYTES, bytes, length);
}

/* A value of the type that a key has. */
static void put_value(tp_cbor_writer *writer, uint32_t key, fuzz_input *input) {
  static const uint32_t edges[] = {56, 100, 140, 204, 560, 2047, 2048, 2049, 0x7FFFFFFFu, 0x80000000u, 0xFFFFFFFFu};
  const uint32_t choice = take_u8(input);
  switch (key_types[key]) {
    case TP_TYPE_BYTES:
      put_key_bytes(writer, key, choice, input);
      break;
    case TP_TYPE_TEXT:
      put_key_text(writer, key, choice);
      break;
    case TP_TYPE_FLOAT:
      tp_cbor_write_float(writer, choice == 255u ? -1.0f : (float)choice / 8.0f);
      break;
    case TP_TYPE_BOOL:
      tp_cbor_write_head(writer, TP_CBOR_SIMPLE, TP_CBOR_FALSE + choice % 2u);
      break;
    default:
      tp_cbor_write_integer(writer, choice < 192u   ? choice % 48u
                                    : choice < 250u ? edges[choice % 11u]
                                                    : take_u32(input));
  }
}

/* A request with every key that its handler needs, and some others. */
static void send_keys(fuzz_input *input) {
  uint8_t bytes[TP_MAX_PAYLOAD];
  tp_cbor_writer payload = {.data = bytes, .capacity = sizeof bytes};
  const uint32_t choice = take_u8(input), more = take_u8(input);
  const tp_group *group = tp_groups[choice % tp_group_count];
  const tp_handler *handler = &group->handlers[choice / tp_group_count % group->count];
  uint64_t keys = handler->required;
  for (uint32_t left = more % 6u; left > 0; left--) {
    keys |= (uint64_t)1 << take_u8(input) % TP_KEY_COUNT;
  }
  tp_cbor_write_byte(&payload, TP_CBOR_BEGIN_MAP);
  for (uint32_t key = 0; key < TP_KEY_COUNT; key++) {
    if ((keys >> key & 1u) != 0) {
      tp_cbor_write_string(&payload, TP_CBOR_TEXT, key_names[key], (uint32_t)strlen(key_names[key]));
      put_value(&payload, key, input);
    }
  }
  tp_cbor_write_byte(&payload, TP_CBOR_BREAK);
  send((uint8_t)(handler->op | (more < 240u ? 8u : 0u)), group->group, handler->command, &payload, payload.used);
}

/* Bytes as a packet that says it has so many, in lines of any length. */
static void send_packet(fuzz_input *input) {
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  uint8_t packet[PACKET_BYTES_MAX];
  const uint32_t says = take_u16(input), choice = take_u8(input), bytes = take_u16(input) % (PACKET_BYTES_MAX + 1u);
  const uint32_t in_line = (choice & 3u) == 0 ? 31u : (choice & 3u) == 1u ? 30u : 1u + choice / 4u;
  uint32_t given = bytes;
  const uint8_t *from = take_bytes(input, &given);
  memset(packet, (int)choice, sizeof packet);
  if (given > 0) {
    memcpy(packet, from, given);
  }
  packet[0] = (uint8_t)(says >> 8 & 0xFFu);
  packet[1] = (uint8_t)(says & 0xFFu);
  if (bytes >= 4u + TP_MESSAGE_HEADER && (choice & 0x80u) != 0) {
    const uint32_t crc = tp_crc16(packet + 2, bytes - 4u);
    packet[bytes - 2u] = (uint8_t)(crc >> 8);
    packet[bytes - 1u] = (uint8_t)(crc & 0xFFu);
  }
  for (uint32_t at = 0; at < bytes;) {
    hear(NULL, (const uint8_t *)(at == 0 ? "\x06\x09" : "\x04\x14"), 2);
    for (uint32_t group = 0; group < in_line && at < bytes; group++, at += 3u) {
      const uint32_t left = bytes - at;
      const uint32_t bits = (uint32_t)packet[at] << 16 | (left > 1u ? (uint32_t)packet[at + 1u] << 8 : 0u) |
                            (left > 2u ? packet[at + 2u] : 0u);
      const char line[] = {digits[bits >> 18], digits[bits >> 12 & 63u], left > 1u ? digits[bits >> 6 & 63u] : '=',
                           left > 2u ? digits[bits & 63u] : '='};
      hear(NULL, (const uint8_t *)line, sizeof line);
    }
    hear(NULL, (const uint8_t *)"\n", 1);
  }
}

/* Send the next pieces of the upload. */
static void go_on(fuzz_input *input) {
  const uint32_t choice = take_u8(input), most = 1u + 8u * (choice >> 3);
  for (uint32_t left = 1u + (choice & 7u); left > 0 && upload.at < upload.length; left--) {
    uint8_t bytes[TP_MAX_PAYLOAD];
    tp_cbor_writer payload = {.data = bytes, .capacity = sizeof bytes};
    char name[9u + sizeof upload.id] = "/adapter/";
    const uint32_t rest = upload.length - upload.at, length = rest < most ? rest : most;
    memcpy(name + 9, upload.id, sizeof upload.id);
    tp_cbor_write_byte(&payload, TP_CBOR_BEGIN_MAP);
    put_text(&payload, upload.as_file ? "name" : "id", upload.as_file ? name : upload.id);
    put_number(&payload, "off", upload.at);
    if (upload.at == 0) {
      put_number(&payload, "len", upload.declared);
    }
    put_bytes(&payload, "data", upload.bytes + upload.at, length);
    tp_cbor_write_byte(&payload, TP_CBOR_BREAK);
    upload.at += length;
    send(TP_OP_WRITE | 8u, upload.as_file ? TP_GROUP_FILES : TP_GROUP_ADAPTERS,
         upload.as_file ? 0u : (uint8_t)TP_ADAPTERS_UPLOAD, &payload, payload.used);
  }
}

/* The package `id` has now, if any: what a delta may be made for. */
static uint32_t stored_package(const char *id, uint8_t *package) {
  const tp_store_entry *entry = tp_store_find(&device.store, id);
  const tp_store_part part = entry != NULL ? tp_group_newest(entry) : TP_STORE_PARTS;
  if (part == TP_STORE_PARTS) {
    return 0;
  }
  return tp_store_read(&device.store, entry, part, 0, package, entry->bytes[part]) == TP_OK ? entry->bytes[part] : 0;
}

static void begin_upload(fuzz_input *input) {
  const uint32_t choice = take_u8(input), identity = take_u8(input), damage = take_u8(input);
  uint8_t package[SLOT_BYTES], old[SLOT_BYTES];
  const char *id = ids[identity % 8u], *named = (identity & 0x80u) != 0 ? ids[0] : id;
  upload.as_file = (choice & 1u) != 0;
  upload.length = make_package(package, named, identity >> 3 & 3u, identity >> 5 & 3u, 1u + (choice >> 1 & 1u),
                               (choice >> 2 & 1u) != 0 ? 0u : TP_PACKAGE_SIGNED, damage);
  if (damage >= 128u) {
    package[take_u8(input) % upload.length] = (uint8_t)take_u8(input);
    seal_package(package, upload.length, damage % 8u);
  }
  const uint32_t old_bytes = (choice & 8u) != 0 && device.with_store ? stored_package(id, old) : 0;
  if (old_bytes > 0) {
    upload.length = make_delta(old, old_bytes, package, upload.length, upload.bytes, sizeof upload.bytes);
    if ((choice & 0x80u) != 0 && upload.length > 0) {
      upload.bytes[take_u8(input) % upload.length] = (uint8_t)take_u8(input);
    }
  } else {
    memcpy(upload.bytes, package, upload.length);
  }
  upload.declared = upload.length + (choice >> 4 & 3u) * ((choice & 0x40u) != 0 ? 0xFFFFFFFFu : 1u);
  upload.at = 0;
  memset(upload.id, 0, sizeof upload.id);
  memcpy(upload.id, id, strlen(id));
  go_on(input);
}

static void check_echo(void) {
  static const uint8_t expected[] = {TP_CBOR_BEGIN_MAP, 0x61, 'r', 0x63, 'h', 'e', 'y', TP_CBOR_BREAK};
  uint8_t bytes[16];
  tp_cbor_writer payload = {.data = bytes, .capacity = sizeof bytes};
  tp_cbor_write_byte(&payload, TP_CBOR_BEGIN_MAP);
  put_text(&payload, "d", "hey");
  tp_cbor_write_byte(&payload, TP_CBOR_BREAK);
  device.answers = 0;
  send(TP_OP_WRITE | 8u, TP_GROUP_OS, 0, &payload, payload.used);
  require(device.answers == 1u && device.last_bytes == TP_MESSAGE_HEADER + sizeof expected, "an echo is answered");
  require(memcmp(device.last + TP_MESSAGE_HEADER, expected, sizeof expected) == 0, "by itself");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  fuzz_input input = {data, (uint32_t)size};
  const uint32_t mode = take_u8(&input);
  memset(&upload, 0, sizeof upload);
  begin_with(mode >> 2 & 3u, (mode & NO_STORE) == 0, (mode & KEY) != 0);
  for (uint32_t i = 0; i < REQUESTS_MAX && input.left > 0; i++) {
    switch (take_u8(&input) % KINDS) {
      case LINE:
        send_line(&input);
        break;
      case MESSAGE:
        send_message(&input);
        break;
      case KEYS:
        send_keys(&input);
        break;
      case BEGIN_UPLOAD:
        begin_upload(&input);
        break;
      case PACKET:
        send_packet(&input);
        break;
      case FAULT:
        device.fault_in = 1u + take_u8(&input) % 12u;
        break;
      case GO_ON:
      default:
        go_on(&input);
    }
  }
  check_echo();
  check_device();
  return 0;
}
