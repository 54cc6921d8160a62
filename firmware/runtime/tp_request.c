#include "tinypeft/tp_request.h"

#include <stddef.h>
#include <string.h>

/* One behind the other, each with its 0. */
#define TP_KEY_NAME(index, name, type) name "\0"
#define TP_KEY_TYPE(index, name, type) TP_TYPE_##type,
static const char names[] = TP_KEY_TABLE(TP_KEY_NAME);
static const uint8_t types[TP_KEY_COUNT] = {TP_KEY_TABLE(TP_KEY_TYPE)}; /* tp_type */

/* The pairs of a map that are still to come. */
typedef struct {
  tp_cbor_reader reader;
  uint32_t left; /* UINT32_MAX: up to the break */
} pairs;

/* 0: no map. */
static int begin_pairs(pairs *map, const uint8_t *payload, uint32_t length) {
  map->reader = (tp_cbor_reader){.data = payload, .length = length};
  map->left = 0;
  if (length == 0) {
    return 1;
  }
  tp_cbor_head head;
  if (!tp_cbor_read_head(&map->reader, &head) || head.major != TP_CBOR_MAP) {
    return 0;
  }
  map->left = head.info == TP_CBOR_INDEFINITE ? UINT32_MAX : head.value;
  return head.high == 0 && (head.info == TP_CBOR_INDEFINITE || head.value < length);
}

static int at_end(pairs *map) {
  tp_cbor_reader *reader = &map->reader;
  if (map->left != UINT32_MAX) {
    return map->left == 0;
  }
  if (reader->at < reader->length && reader->data[reader->at] == TP_CBOR_BREAK) {
    reader->at++;
    return 1;
  }
  return 0;
}

static tp_key find_key(const uint8_t *name, uint32_t length) {
  const char *known = names;
  uint32_t key = 0;
  for (; key < TP_KEY_COUNT; key++) {
    const uint32_t size = (uint32_t)strlen(known);
    if (size == length && memcmp(known, name, size) == 0) {
      break;
    }
    known += size + 1u;
  }
  return (tp_key)key;
}

/* Step over the next key: which it is, TP_KEY_COUNT for another. 0: not well-formed. */
static int next_key(pairs *map, tp_key *key) {
  tp_cbor_reader *reader = &map->reader;
  const uint32_t begin = reader->at;
  tp_cbor_head head;
  if (map->left != UINT32_MAX) {
    map->left--;
  }
  if (!tp_cbor_read_head(reader, &head)) {
    return 0;
  }
  *key = TP_KEY_COUNT;
  if (head.major != TP_CBOR_TEXT || head.info == TP_CBOR_INDEFINITE) {
    reader->at = begin;
    return tp_cbor_skip(reader);
  }
  *key = find_key(reader->data + reader->at, head.value);
  reader->at += head.value;
  return 1;
}

static int is_null(const tp_cbor_head *head) { return head->major == TP_CBOR_SIMPLE && head->info == TP_CBOR_NULL; }

static int has_type(const tp_cbor_head *head, uint8_t type) {
  switch ((tp_type)type) {
    case TP_TYPE_U32:
      return tp_cbor_is_u32(head);
    case TP_TYPE_S32:
      return tp_cbor_is_s32(head);
    case TP_TYPE_FLOAT:
      return tp_cbor_is_float(head);
    case TP_TYPE_BOOL:
      return head->major == TP_CBOR_SIMPLE && (head->info == TP_CBOR_FALSE || head->info == TP_CBOR_TRUE);
    case TP_TYPE_BYTES:
      return head->major == TP_CBOR_BYTES && head->info != TP_CBOR_INDEFINITE;
    case TP_TYPE_TEXT:
    default:
      return head->major == TP_CBOR_TEXT && head->info != TP_CBOR_INDEFINITE;
  }
}

/* Check the value of a key and step over it. */
static int check_value(pairs *map, tp_key key, uint32_t *seen, uint32_t *present) {
  tp_cbor_reader *reader = &map->reader;
  if (key < TP_KEY_COUNT) {
    const uint32_t word = key / 32u, bit = 1u << key % 32u, begin = reader->at;
    tp_cbor_head head;
    if ((seen[word] & bit) != 0 || !tp_cbor_read_head(reader, &head)) {
      return 0;
    }
    seen[word] |= bit;
    if (!is_null(&head)) {
      if (!has_type(&head, types[key])) {
        return 0;
      }
      present[word] |= bit;
    }
    reader->at = begin;
  }
  return tp_cbor_skip(reader);
}

int tp_request_read(tp_request *request, const uint8_t *payload, uint32_t length) {
  pairs map;
  uint32_t seen[2] = {0};
  *request = (tp_request){.payload = payload, .length = length};
  if (!begin_pairs(&map, payload, length)) {
    return 0;
  }
  while (!at_end(&map)) {
    tp_key key;
    if (!next_key(&map, &key) || !check_value(&map, key, seen, request->present)) {
      return 0;
    }
  }
  return map.reader.at == length;
}

int tp_request_has(const tp_request *request, tp_key key) {
  return (request->present[key / 32u] >> key % 32u & 1u) != 0;
}

int tp_request_has_all(const tp_request *request, uint32_t keys) { return (keys & ~request->present[0]) == 0; }

/* What is behind the head of a key's value; NULL: absent, and the head is all zeros. */
static const uint8_t *find(const tp_request *request, tp_key wanted, tp_cbor_head *head) {
  pairs map;
  tp_key key = TP_KEY_COUNT;
  *head = (tp_cbor_head){0};
  if (!tp_request_has(request, wanted) || !begin_pairs(&map, request->payload, request->length)) {
    return NULL;
  }
  while (!at_end(&map) && next_key(&map, &key) && key != wanted) {
    if (!tp_cbor_skip(&map.reader)) {
      return NULL;
    }
  }
  return key == wanted && tp_cbor_read_head(&map.reader, head) ? map.reader.data + map.reader.at : NULL;
}

uint32_t tp_request_u32(const tp_request *request, tp_key key, uint32_t otherwise) {
  tp_cbor_head head;
  return find(request, key, &head) != NULL ? head.value : otherwise;
}

int32_t tp_request_s32(const tp_request *request, tp_key key, int32_t otherwise) {
  tp_cbor_head head;
  return find(request, key, &head) != NULL ? tp_cbor_s32(&head) : otherwise;
}

float tp_request_float(const tp_request *request, tp_key key, float otherwise) {
  tp_cbor_head head;
  return find(request, key, &head) != NULL ? tp_cbor_float(&head) : otherwise;
}

int tp_request_bool(const tp_request *request, tp_key key) {
  tp_cbor_head head;
  (void)find(request, key, &head);
  return head.info == TP_CBOR_TRUE;
}

tp_span tp_request_span(const tp_request *request, tp_key key) {
  tp_cbor_head head;
  const uint8_t *data = find(request, key, &head);
  return (tp_span){data, head.value};
}
