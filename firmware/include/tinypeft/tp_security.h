/* What only the platform can do: signatures, entropy, a counter that never goes back, keys. */
#ifndef TP_SECURITY_H
#define TP_SECURITY_H

#include "tp_types.h"

#define TP_DIGEST_BYTES 32u
#define TP_SIGNATURE_BYTES 64u

/* TP_OK where `signature` is that of the 32 bytes of `digest`, the SHA-256 of a package up to it; else
 * TP_ERR_SIGNATURE. */
typedef tp_status tp_verify_sig(void *context, const uint8_t *digest, const uint8_t *signature);

/* Fill `bytes` with `length` unpredictable bytes. */
typedef tp_status tp_entropy(void *context, uint8_t *bytes, uint32_t length);

/* Raise the platform's counter to `least` where it is lower, and give what it is now; least = 0 only reads. */
typedef tp_status tp_monotonic_counter(void *context, uint32_t least, uint32_t *value);

/* A key of `length` bytes for `purpose`, the same after every reset, that no other device has. */
typedef tp_status tp_key_derive(void *context, const char *purpose, uint8_t *key, uint32_t length);

/* Any member may be NULL.
 *   verify_sig         NULL: packages need no signature; else one without is TP_ERR_SIGNATURE
 *   entropy            NULL: a fresh adapter's seed must be given
 *   monotonic_counter  NULL: only the store remembers the security counters of confirmed adapters
 *   key_derive         NULL: training checkpoints are checked against damage, not against forgery */
typedef struct {
  void *context;
  tp_verify_sig *verify_sig;
  tp_entropy *entropy;
  tp_monotonic_counter *monotonic_counter;
  tp_key_derive *key_derive;
} tp_security;

#endif
