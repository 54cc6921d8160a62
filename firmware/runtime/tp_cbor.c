#include "tinypeft/tp_cbor.h"

#include <stddef.h>
#include <string.h>

#include "tinypeft/tp_bytes.h"

#define INFO_BYTES_1 24u
#define INFO_BYTES_2 25u
#define INFO_BYTES_4 26u
#define INFO_BYTES_8 27u
#define MAX_BYTES 8u

/* In place of a count: what ends with a break. Of a map, bit 0 says that a value comes next. */
#define OPEN_ARRAY 0x8000u
#define OPEN_MAP 0xC000u
#define IS_MAP(left) ((left) >> 14 & 1u)

#define FLOAT_INFINITE 0x7F800000u
#define FLOAT_QUIET 0x00400000u
#define SIGN 0x80000000u
#define HALF 0x80000000u /* of the last place, where 32 bits are rounded away */

/* Reading */

static int is_string(const tp_cbor_head *head) { return head->major == TP_CBOR_BYTES || head->major == TP_CBOR_TEXT; }

static int is_break(const tp_cbor_head *head) {
  return head->major == TP_CBOR_SIMPLE && head->info == TP_CBOR_INDEFINITE;
}

int tp_cbor_read_head(tp_cbor_reader *reader, tp_cbor_head *head) {
  if (reader->at >= reader->length) {
    return 0;
  }
  const uint8_t first = reader->data[reader->at++];
  const uint32_t left = reader->length - reader->at;
  head->major = (uint8_t)(first >> 5);
  head->info = first & 31u;
  head->value = head->info;
  head->high = 0;
  if (head->info >= INFO_BYTES_1 && head->info <= INFO_BYTES_8) {
    const uint32_t bytes = 1u << (head->info - INFO_BYTES_1);
    if (bytes > left) {
      return 0;
    }
    head->value = 0;
    for (uint32_t i = 0; i < bytes; i++) {
      head->high = head->high << 8 | head->value >> 24;
      head->value = head->value << 8 | reader->data[reader->at++];
    }
  }
  if (head->info == TP_CBOR_INDEFINITE) {
    return head->major >= TP_CBOR_BYTES && head->major != TP_CBOR_TAG;
  }
  if (is_string(head) && (head->high != 0 || head->value > reader->length - reader->at)) {
    return 0;
  }
  const int false_simple = head->major == TP_CBOR_SIMPLE && head->info == INFO_BYTES_1 && head->value < 32;
  return head->info <= INFO_BYTES_8 && !false_simple;
}

/* A string's content: definite, or chunks up to a break. */
static int skip_content(tp_cbor_reader *reader, const tp_cbor_head *head) {
  if (head->info != TP_CBOR_INDEFINITE) {
    reader->at += head->value;
    return 1;
  }
  tp_cbor_head chunk;
  while (tp_cbor_read_head(reader, &chunk)) {
    if (is_break(&chunk)) {
      return 1;
    }
    if (chunk.major != head->major || chunk.info == TP_CBOR_INDEFINITE) {
      return 0;
    }
    reader->at += chunk.value;
  }
  return 0;
}

int tp_cbor_skip(tp_cbor_reader *reader) {
  uint16_t left[TP_CBOR_DEPTH + 1] = {1}; /* items still to come at each level */
  uint16_t *level = left;
  for (;;) {
    while (*level == 0) {
      if (level-- == left) {
        return 1;
      }
    }
    tp_cbor_head head;
    const uint32_t begin = reader->at;
    do {
      if (!tp_cbor_read_head(reader, &head)) {
        return 0;
      }
    } while (head.major == TP_CBOR_TAG);
    if (is_break(&head)) {
      if (*level < OPEN_ARRAY || (*level & 1u) != 0 || reader->at != begin + 1u) {
        return 0;
      }
      *level = 0;
      continue;
    }
    *level = (uint16_t)(*level < OPEN_ARRAY ? *level - 1u : *level ^ IS_MAP(*level));
    if (is_string(&head)) {
      if (!skip_content(reader, &head)) {
        return 0;
      }
    } else if (head.major == TP_CBOR_ARRAY || head.major == TP_CBOR_MAP) {
      const uint32_t each = head.major - TP_CBOR_ARRAY; /* a count is shifted by it */
      uint32_t count = OPEN_ARRAY | each << 14;
      if (head.info != TP_CBOR_INDEFINITE) {
        if (head.high != 0 || head.value > (reader->length - reader->at) >> each) {
          return 0;
        }
        count = head.value << each;
      }
      if (level == left + TP_CBOR_DEPTH) {
        return 0;
      }
      *++level = (uint16_t)count;
    }
  }
}

/* Numbers */

/* The bits of (high * 2^32 + low) * 2^exponent as float32. */
static uint32_t nearest_float(uint32_t high, uint32_t low, int32_t exponent) {
  if ((high | low) == 0) {
    return 0;
  }
  while (high >> 31 == 0) {
    high = high << 1 | low >> 31;
    low <<= 1;
    exponent--;
  }
  if (low != 0) {
    high |= 1u; /* below what is rounded away: it only breaks ties */
  }
  const int32_t biased = exponent + 63 + 127;
  if (biased > 254) {
    return FLOAT_INFINITE;
  }
  const int32_t shift = biased >= 1 ? 8 : 9 - biased; /* fewer bits below the smallest normal number */
  if (shift > 32) {
    return 0;
  }
  const uint32_t kept = shift < 32 ? high >> shift : 0;
  const uint32_t rest = high << (32 - shift);
  const uint32_t up = rest > HALF || (rest == HALF && (kept & 1u) != 0) ? 1u : 0u;
  return (biased >= 1 ? (uint32_t)(biased - 1) << 23 : 0u) + kept + up; /* rounding up may carry */
}

static uint32_t float_bits(const tp_cbor_head *head) {
  uint32_t high = head->high, low = head->value;
  if (head->major == TP_CBOR_UNSIGNED) {
    return nearest_float(high, low, 0);
  }
  if (head->major == TP_CBOR_NEGATIVE) {
    high += ++low == 0 ? 1u : 0u;
    return SIGN | ((high | low) == 0 ? nearest_float(HALF, 0, 1) : nearest_float(high, low, 0));
  }
  if (head->info == TP_CBOR_FLOAT) {
    return low;
  }
  uint32_t top = 2047, bias = 1023 + 52;
  if (head->info == TP_CBOR_HALF) { /* brought to where a double has its fields */
    high = (low & 0x8000u) << 16 | (low & 0x7FFFu) << 10;
    low = 0;
    top = 31;
    bias = 15 + 52;
  }
  const uint32_t sign = high & SIGN, exponent = high >> 20 & top, mantissa = high & 0xFFFFFu;
  if (exponent == top) {
    return sign | FLOAT_INFINITE | ((mantissa | low) != 0 ? FLOAT_QUIET : 0u);
  }
  const uint32_t hidden = exponent == 0 ? 0u : 1u << 20;
  return sign | nearest_float(mantissa | hidden, low, (int32_t)(exponent == 0 ? 1u : exponent) - (int32_t)bias);
}

float tp_cbor_float(const tp_cbor_head *head) {
  const uint32_t bits = float_bits(head);
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

/* Writing */

void tp_cbor_write_raw(tp_cbor_writer *writer, const void *data, uint32_t length) {
  if (writer->full != 0 || length > (uint32_t)writer->capacity - writer->used) {
    writer->full = 1;
    return;
  }
  if (length > 0) {
    memcpy(writer->data + writer->used, data, length);
    writer->used = (uint16_t)(writer->used + length);
  }
}

void tp_cbor_write_byte(tp_cbor_writer *writer, uint8_t byte) { tp_cbor_write_raw(writer, &byte, 1); }

/* A head with the lower bytes of a number, 0 to 8 of them. */
static void write_number(tp_cbor_writer *writer, uint32_t head, uint32_t bytes, uint64_t value) {
  uint8_t item[1 + MAX_BYTES];
  tp_put_u32be(item + 1, (uint32_t)(value >> 32));
  tp_put_u32be(item + 5, (uint32_t)value);
  item[MAX_BYTES - bytes] = (uint8_t)head;
  tp_cbor_write_raw(writer, item + MAX_BYTES - bytes, 1u + bytes);
}

void tp_cbor_write_head(tp_cbor_writer *writer, uint8_t major, uint64_t value) {
  const uint32_t low = (uint32_t)value, head = (uint32_t)major << 5;
  if (value >> 32 != 0) {
    write_number(writer, head | INFO_BYTES_8, 8, value);
  } else if (low > 0xFFFFu) {
    write_number(writer, head | INFO_BYTES_4, 4, value);
  } else if (low > 0xFFu) {
    write_number(writer, head | INFO_BYTES_2, 2, value);
  } else if (low >= INFO_BYTES_1) {
    write_number(writer, head | INFO_BYTES_1, 1, value);
  } else {
    write_number(writer, head | low, 0, value);
  }
}

void tp_cbor_write_integer(tp_cbor_writer *writer, int64_t value) {
  if (value < 0) {
    tp_cbor_write_head(writer, TP_CBOR_NEGATIVE, (uint64_t)(-1 - value));
  } else {
    tp_cbor_write_head(writer, TP_CBOR_UNSIGNED, (uint64_t)value);
  }
}

void tp_cbor_write_float(tp_cbor_writer *writer, float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  write_number(writer, TP_CBOR_SIMPLE << 5 | TP_CBOR_FLOAT, 4, bits);
}

void tp_cbor_write_string(tp_cbor_writer *writer, uint8_t major, const void *data, uint32_t length) {
  tp_cbor_write_head(writer, major, length);
  tp_cbor_write_raw(writer, data, length);
}
