/* Reads documents from stdin, each as u16le length and bytes, and prints a line for each:
 *   w 1 or 0: well-formed, by tp_cbor_skip; f and the bits of tp_cbor_float where the document is one number; r 1 or 0:
 *   a valid request, then `name=value` of each of its known keys. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tinypeft/tp_request.h"

static void print_value(const tp_request *request, tp_key key, tp_type type, const char *name) {
  if (!tp_request_has(request, key)) {
    return;
  }
  printf(" %s=", name);
  if (type == TP_TYPE_BYTES || type == TP_TYPE_TEXT) {
    const tp_span span = tp_request_span(request, key);
    for (uint32_t i = 0; i < span.length; i++) {
      printf("%02x", span.data[i]);
    }
  } else if (type == TP_TYPE_FLOAT) {
    const float value = tp_request_float(request, key, 0.0f);
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    printf("%08x", (unsigned)bits);
  } else if (type == TP_TYPE_BOOL) {
    printf("%d", tp_request_bool(request, key));
  } else if (type == TP_TYPE_S32) {
    printf("%ld", (long)tp_request_s32(request, key, 0));
  } else {
    printf("%lu", (unsigned long)tp_request_u32(request, key, 0));
  }
}

int main(void) {
  int low, high;
  while ((low = getchar()) != EOF && (high = getchar()) != EOF) {
    const uint32_t length = (uint32_t)low | (uint32_t)high << 8;
    uint8_t *data = malloc(length > 0 ? length : 1); /* of its size: a sanitizer sees a read behind it */
    if (data == NULL || fread(data, 1, length, stdin) != length) {
      return 1;
    }
    tp_cbor_reader reader = {.data = data, .length = length};
    printf("w%d", tp_cbor_skip(&reader) && reader.at == length);
    tp_cbor_head head;
    reader.at = 0;
    if (tp_cbor_read_head(&reader, &head) && reader.at == length && tp_cbor_is_float(&head)) {
      const float value = tp_cbor_float(&head);
      uint32_t bits;
      memcpy(&bits, &value, sizeof bits);
      printf(" f%08x", (unsigned)bits);
    }
    tp_request request;
    const int valid = tp_request_read(&request, data, length);
    printf(" r%d", valid);
    if (valid) {
#define PRINT(index, name, type) print_value(&request, TP_KEY_##index, TP_TYPE_##type, name);
      TP_KEY_TABLE(PRINT)
    }
    printf("\n");
    free(data);
  }
  return 0;
}
