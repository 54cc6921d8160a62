/* Any bytes as a request: read the same twice, within bounds, and every key that is there can be read. */
#include <stdlib.h>
#include <string.h>

#include "harness.h"
#include "tinypeft/tp_request.h"

#define TYPE(index, name, type) TP_TYPE_##type,
static const uint8_t types[TP_KEY_COUNT] = {TP_KEY_TABLE(TYPE)};

static void check_span(const tp_request *request, tp_key key, const uint8_t *data, uint32_t size) {
  const tp_span span = tp_request_span(request, key);
  require((span.data != NULL) == tp_request_has(request, key), "a span is there where its key is");
  if (span.data != NULL) {
    require(span.data > data && span.data <= data + size && span.length <= (uint32_t)(data + size - span.data),
            "a span lies within the request");
    volatile uint8_t sum = 0;
    for (uint32_t i = 0; i < span.length + PLANTED_BYTES; i++) {
      sum = (uint8_t)(sum ^ span.data[i]);
    }
  }
}

static void check_key(const tp_request *request, tp_key key, const uint8_t *data, uint32_t size) {
  const int there = tp_request_has(request, key);
  require(key >= 16 || tp_request_has_all(request, 1u << key) == there, "both ways to ask for a key agree");
  switch ((tp_type)types[key]) {
    case TP_TYPE_U32:
      require(there || tp_request_u32(request, key, 0xA5u) == 0xA5u, "an absent number is the other one");
      (void)tp_request_u32(request, key, 0);
      break;
    case TP_TYPE_S32:
      require(there || tp_request_s32(request, key, -5) == -5, "an absent number is the other one");
      (void)tp_request_s32(request, key, 0);
      break;
    case TP_TYPE_FLOAT: {
      const float first = tp_request_float(request, key, 1.0f), second = tp_request_float(request, key, 1.0f);
      require(memcmp(&first, &second, sizeof first) == 0, "a float reads the same twice");
      require(there || first == 1.0f, "an absent float is the other one");
      break;
    }
    case TP_TYPE_BOOL:
      require(there || !tp_request_bool(request, key), "what is absent is false");
      break;
    case TP_TYPE_BYTES:
    case TP_TYPE_TEXT:
    default:
      check_span(request, key, data, size);
  }
}

/* How often each known key is there with a value, by walking through the map. */
static void count_keys(const uint8_t *data, uint32_t size, uint8_t counts[TP_KEY_COUNT]) {
#define NAME(index, name, type) name,
  static const char *const names[] = {TP_KEY_TABLE(NAME)};
  tp_cbor_reader reader = {.data = data, .length = size};
  tp_cbor_head head;
  require(tp_cbor_read_head(&reader, &head), "a map begins");
  for (uint32_t left = head.info == TP_CBOR_INDEFINITE ? UINT32_MAX : head.value; left > 0; left--) {
    if (head.info == TP_CBOR_INDEFINITE && data[reader.at] == TP_CBOR_BREAK) {
      break;
    }
    tp_cbor_head key;
    tp_cbor_reader inside = reader;
    require(tp_cbor_read_head(&inside, &key) && tp_cbor_skip(&reader), "a key");
    const int is_null = data[reader.at] == (TP_CBOR_SIMPLE << 5 | TP_CBOR_NULL);
    for (uint32_t i = 0; i < TP_KEY_COUNT && key.major == TP_CBOR_TEXT && key.info != TP_CBOR_INDEFINITE; i++) {
      if (!is_null && strlen(names[i]) == key.value && memcmp(names[i], data + inside.at, key.value) == 0) {
        counts[i]++;
      }
    }
    require(tp_cbor_skip(&reader), "a value");
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const uint32_t length = (uint32_t)size;
  tp_request request, again;
  memset(&request, 0x55, sizeof request);
  memset(&again, 0xAA, sizeof again);
  const int valid = tp_request_read(&request, data, length);
  require(valid == tp_request_read(&again, data, length), "a request is valid or not");
  tp_cbor_reader reader = {.data = data, .length = length};
  (void)tp_cbor_skip(&reader);
  require(reader.at <= length, "the reader stays within the data");
  if (!valid) {
    return 0;
  }
  require(request.present[0] == again.present[0] && request.present[1] == again.present[1], "keys read the same twice");
  uint8_t counts[TP_KEY_COUNT] = {0};
  if (length > 0) {
    count_keys(data, length, counts);
  }
  for (uint32_t key = 0; key < TP_KEY_COUNT; key++) {
    require(counts[key] == (tp_request_has(&request, (tp_key)key) ? 1u : 0u), "a key that is there is there once");
    check_key(&request, (tp_key)key, data, length);
  }
  if (length > 1u) {
    require(!tp_request_read(&again, data, length - 1u) && !tp_request_read(&again, data, (length + 1u) / 2u),
            "a part of a request is none");
  }
  return 0;
}
