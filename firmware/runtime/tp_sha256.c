#include "tinypeft/tp_sha256.h"

#include <string.h>

#include "tinypeft/tp_bytes.h"

#define BLOCK 64u
#define INNER_PAD 0x36u
#define OUTER_PAD 0x5Cu

static const uint32_t rounds[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t rotate(uint32_t x, uint32_t by) { return x >> by | x << (32u - by); }

static void compress(tp_sha256 *sha) {
  uint32_t w[16];
  uint32_t s[8];
  memcpy(s, sha->state, sizeof s);
  for (uint32_t i = 0; i < 64u; i++) {
    uint32_t next;
    if (i < 16u) {
      next = tp_get_u32be(sha->block + 4u * i);
    } else {
      const uint32_t x = w[(i + 1u) & 15u];
      const uint32_t y = w[(i + 14u) & 15u];
      next = w[i & 15u] + w[(i + 9u) & 15u] + (rotate(x, 7) ^ rotate(x, 18) ^ x >> 3) +
             (rotate(y, 17) ^ rotate(y, 19) ^ y >> 10);
    }
    w[i & 15u] = next;
    const uint32_t e = s[4];
    const uint32_t a = s[0];
    const uint32_t t = s[7] + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + ((e & s[5]) ^ (~e & s[6])) +
                       rounds[i] + next;
    const uint32_t u = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]));
    memmove(s + 1, s, 7u * sizeof s[0]);
    s[4] += t;
    s[0] = t + u;
  }
  for (uint32_t i = 0; i < 8u; i++) {
    sha->state[i] += s[i];
  }
}

void tp_sha256_begin(tp_sha256 *sha) {
  static const uint32_t start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  memcpy(sha->state, start, sizeof start);
  sha->length = 0;
}

void tp_sha256_update(tp_sha256 *sha, const void *data, uint32_t length) {
  const uint8_t *bytes = data;
  while (length > 0) {
    const uint32_t at = sha->length % BLOCK;
    const uint32_t part = length < BLOCK - at ? length : BLOCK - at;
    memcpy(sha->block + at, bytes, part);
    sha->length += part;
    bytes += part;
    length -= part;
    if (at + part == BLOCK) {
      compress(sha);
    }
  }
}

void tp_sha256_finish(tp_sha256 *sha, uint8_t digest[TP_SHA256_BYTES]) {
  const uint32_t bits = sha->length << 3;
  uint8_t byte = 0x80;
  do { /* one bit, then zeros up to the length, which ends a block */
    tp_sha256_update(sha, &byte, 1);
    byte = 0;
  } while (sha->length % BLOCK != BLOCK - 8u);
  uint8_t end[8] = {0};
  tp_put_u32be(end + 4, bits);
  tp_sha256_update(sha, end, sizeof end);
  for (uint32_t i = 0; i < TP_SHA256_BYTES / 4u; i++) {
    tp_put_u32be(digest + 4u * i, sha->state[i]);
  }
}

/* A fresh context that has had the key, each byte changed by `pad`. */
static void begin_keyed(tp_sha256 *sha, const uint8_t *key, uint32_t key_length, uint32_t pad) {
  tp_sha256_begin(sha);
  for (uint32_t i = 0; i < BLOCK; i++) {
    const uint8_t byte = (uint8_t)((i < key_length ? key[i] : 0u) ^ pad);
    tp_sha256_update(sha, &byte, 1);
  }
}

void tp_hmac_sha256_begin(tp_sha256 *sha, const uint8_t *key, uint32_t key_length) {
  begin_keyed(sha, key, key_length, INNER_PAD);
}

void tp_hmac_sha256_finish(tp_sha256 *sha, const uint8_t *key, uint32_t key_length, uint8_t mac[TP_SHA256_BYTES]) {
  tp_sha256_finish(sha, mac);
  begin_keyed(sha, key, key_length, OUTER_PAD);
  tp_sha256_update(sha, mac, TP_SHA256_BYTES);
  tp_sha256_finish(sha, mac);
}

void tp_hmac_sha256(const uint8_t *key, uint32_t key_length, const void *first, uint32_t first_length,
                    const void *second, uint32_t second_length, uint8_t mac[TP_SHA256_BYTES]) {
  tp_sha256 sha;
  tp_hmac_sha256_begin(&sha, key, key_length);
  tp_sha256_update(&sha, first, first_length);
  tp_sha256_update(&sha, second, second_length);
  tp_hmac_sha256_finish(&sha, key, key_length, mac);
}
