/* Keys and numbers from the device secret, a counter in retained memory. */
#include "hooks.h"

#include <string.h>

#include "device_secret.h"
#include "retained.h"
#include "tinypeft/tp_sha256.h"

extern const uint8_t tp_device_secret[TP_SHA256_BYTES];
const uint8_t tp_device_secret[TP_SHA256_BYTES] = {TP_DEVICE_SECRET};
_Static_assert(sizeof((const uint8_t[]){TP_DEVICE_SECRET}) == TP_SHA256_BYTES, "DEVICE_SECRET has 64 hex digits");

/* Nothing that is derived is longer: the counter of blocks stays a byte. */
#define LONGEST (255u * TP_SHA256_BYTES)

/* block[i] = HMAC(secret, (u32) i, label), i from 1 on, big-endian. */
static tp_status expand(const void *label, uint32_t label_bytes, uint8_t *bytes, uint32_t length) {
  if (bytes == NULL || length > LONGEST) {
    return TP_ERR_ARGUMENT;
  }
  uint8_t mac[TP_SHA256_BYTES];
  uint8_t number[4] = {0};
  for (uint32_t done = 0; done < length; done += TP_SHA256_BYTES) {
    const uint32_t part = length - done < TP_SHA256_BYTES ? length - done : TP_SHA256_BYTES;
    number[3]++;
    tp_hmac_sha256(tp_device_secret, sizeof tp_device_secret, number, sizeof number, label, label_bytes, mac);
    memcpy(bytes + done, mac, part);
  }
  return TP_OK;
}

static tp_status key_derive(void *context, const char *purpose, uint8_t *key, uint32_t length) {
  (void)context;
  /* With its terminator: no purpose is the beginning of another, nor of the label of an entropy draw. */
  return purpose == NULL ? TP_ERR_ARGUMENT : expand(purpose, (uint32_t)strlen(purpose) + 1u, key, length);
}

static tp_status entropy(void *context, uint8_t *bytes, uint32_t length) {
  (void)context;
  static uint32_t draws;
  struct {
    char purpose[8];
    uint32_t boots, draw;
  } label = {"\xFF" "draw", tp_retained_read()->boots, draws++};
  return expand(&label, sizeof label, bytes, length);
}

static tp_status monotonic_counter(void *context, uint32_t least, uint32_t *value) {
  (void)context;
  if (value == NULL) {
    return TP_ERR_ARGUMENT;
  }
  if (tp_retained_read()->counter < least) {
    tp_retained_write(least, tp_retained_read()->stage);
  }
  *value = tp_retained_read()->counter;
  return TP_OK;
}

const tp_security tp_hooks = {
    .context = NULL,
    .verify_sig = NULL,
    .entropy = entropy,
    .monotonic_counter = monotonic_counter,
    .key_derive = key_derive,
};
