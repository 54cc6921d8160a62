/* SHA-256 (FIPS 180-4) of bytes that come in pieces, and HMAC-SHA-256 (RFC 2104). */
#ifndef TP_SHA256_H
#define TP_SHA256_H

#include "tp_types.h"

#define TP_SHA256_BYTES 32u

typedef struct {
  uint32_t state[8];
  uint32_t length; /* bytes so far, below 2^29 */
  uint8_t block[64];
} tp_sha256;

void tp_sha256_begin(tp_sha256 *sha);
void tp_sha256_update(tp_sha256 *sha, const void *data, uint32_t length);
/* Write the digest; the context must begin anew before it is used again. */
void tp_sha256_finish(tp_sha256 *sha, uint8_t digest[TP_SHA256_BYTES]);

/* HMAC of what is added in between, with the same key of at most 64 bytes at both ends. */
void tp_hmac_sha256_begin(tp_sha256 *sha, const uint8_t *key, uint32_t key_length);
void tp_hmac_sha256_finish(tp_sha256 *sha, const uint8_t *key, uint32_t key_length, uint8_t mac[TP_SHA256_BYTES]);

/* Of a key of at most 64 bytes and two buffers, one behind the other; `second` may be NULL where it has no bytes. */
void tp_hmac_sha256(const uint8_t *key, uint32_t key_length, const void *first, uint32_t first_length,
                    const void *second, uint32_t second_length, uint8_t mac[TP_SHA256_BYTES]);

#endif
