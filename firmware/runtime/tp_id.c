#include "tinypeft/tp_id.h"

static int allowed(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
}

int tp_id_same(const char *a, const char *b) {
  uint32_t i = 0;
  while (i < TP_ID_BYTES && a[i] == b[i] && a[i] != 0) {
    i++;
  }
  return i == TP_ID_BYTES || a[i] == b[i];
}

int tp_id_valid(const char *id) {
  const uint32_t length = tp_id_length(id);
  int valid = length > 0 && length < TP_ID_BYTES;
  for (uint32_t i = 0; i < TP_ID_BYTES; i++) {
    valid &= i < length ? allowed(id[i]) : id[i] == 0;
  }
  return valid;
}

tp_status tp_id_set(char id[TP_ID_BYTES], const char *text, uint32_t length) {
  memset(id, 0, TP_ID_BYTES);
  if (length >= TP_ID_BYTES) {
    return TP_ERR_ID;
  }
  if (length > 0) {
    memcpy(id, text, length);
  }
  return tp_id_valid(id) ? TP_OK : TP_ERR_ID;
}
