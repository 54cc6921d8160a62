#include "tinypeft/tp_verify_ed25519.h"

#include <string.h>

#include "../monocypher/monocypher.h"

#define KEY_BYTES 32u
#define BLOCK_BYTES 128u
#define HASHED_BYTES (KEY_BYTES + KEY_BYTES + TP_DIGEST_BYTES) /* of a signature its first half */

_Static_assert(HASHED_BYTES + 17u <= BLOCK_BYTES, "what SHA-512 is of fits a block");

static uint64_t rotate(uint64_t x, uint32_t by) { return x >> by | x << (64u - by); }

static uint64_t get_u64(const uint8_t *at) {
  uint64_t value = 0;
  for (uint32_t i = 0; i < 8u; i++) {
    value = value << 8 | at[i];
  }
  return value;
}

/* SHA-512 (FIPS 180-4) of one block, which ends as the last block of a message does. */
static void sha512_of_block(const uint8_t block[BLOCK_BYTES], uint8_t digest[64]) {
  static const uint64_t start[8] = {0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
                                    0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179};
  static const uint64_t rounds[80] = {
      0x428a2f98d728ae22, 0x7137449123ef65cd, 0xb5c0fbcfec4d3b2f, 0xe9b5dba58189dbbc, 0x3956c25bf348b538,
      0x59f111f1b605d019, 0x923f82a4af194f9b, 0xab1c5ed5da6d8118, 0xd807aa98a3030242, 0x12835b0145706fbe,
      0x243185be4ee4b28c, 0x550c7dc3d5ffb4e2, 0x72be5d74f27b896f, 0x80deb1fe3b1696b1, 0x9bdc06a725c71235,
      0xc19bf174cf692694, 0xe49b69c19ef14ad2, 0xefbe4786384f25e3, 0x0fc19dc68b8cd5b5, 0x240ca1cc77ac9c65,
      0x2de92c6f592b0275, 0x4a7484aa6ea6e483, 0x5cb0a9dcbd41fbd4, 0x76f988da831153b5, 0x983e5152ee66dfab,
      0xa831c66d2db43210, 0xb00327c898fb213f, 0xbf597fc7beef0ee4, 0xc6e00bf33da88fc2, 0xd5a79147930aa725,
      0x06ca6351e003826f, 0x142929670a0e6e70, 0x27b70a8546d22ffc, 0x2e1b21385c26c926, 0x4d2c6dfc5ac42aed,
      0x53380d139d95b3df, 0x650a73548baf63de, 0x766a0abb3c77b2a8, 0x81c2c92e47edaee6, 0x92722c851482353b,
      0xa2bfe8a14cf10364, 0xa81a664bbc423001, 0xc24b8b70d0f89791, 0xc76c51a30654be30, 0xd192e819d6ef5218,
      0xd69906245565a910, 0xf40e35855771202a, 0x106aa07032bbd1b8, 0x19a4c116b8d2d0c8, 0x1e376c085141ab53,
      0x2748774cdf8eeb99, 0x34b0bcb5e19b48a8, 0x391c0cb3c5c95a63, 0x4ed8aa4ae3418acb, 0x5b9cca4f7763e373,
      0x682e6ff3d6b2b8a3, 0x748f82ee5defb2fc, 0x78a5636f43172f60, 0x84c87814a1f0ab72, 0x8cc702081a6439ec,
      0x90befffa23631e28, 0xa4506cebde82bde9, 0xbef9a3f7b2c67915, 0xc67178f2e372532b, 0xca273eceea26619c,
      0xd186b8c721c0c207, 0xeada7dd6cde0eb1e, 0xf57d4f7fee6ed178, 0x06f067aa72176fba, 0x0a637dc5a2c898a6,
      0x113f9804bef90dae, 0x1b710b35131c471b, 0x28db77f523047d84, 0x32caab7b40c72493, 0x3c9ebe0a15c9bebc,
      0x431d67c49c100d4c, 0x4cc5d4becb3e42b6, 0x597f299cfc657e2a, 0x5fcb6fab3ad6faec, 0x6c44198c4a475817};
  uint64_t w[16];
  uint64_t s[8];
  memcpy(s, start, sizeof s);
  for (uint32_t i = 0; i < 80u; i++) {
    uint64_t next;
    if (i < 16u) {
      next = get_u64(block + 8u * i);
    } else {
      const uint64_t x = w[(i + 1u) & 15u];
      const uint64_t y = w[(i + 14u) & 15u];
      next = w[i & 15u] + w[(i + 9u) & 15u] + (rotate(x, 1) ^ rotate(x, 8) ^ x >> 7) +
             (rotate(y, 19) ^ rotate(y, 61) ^ y >> 6);
    }
    w[i & 15u] = next;
    const uint64_t e = s[4];
    const uint64_t a = s[0];
    const uint64_t t =
        s[7] + (rotate(e, 14) ^ rotate(e, 18) ^ rotate(e, 41)) + ((e & s[5]) ^ (~e & s[6])) + rounds[i] + next;
    const uint64_t u = (rotate(a, 28) ^ rotate(a, 34) ^ rotate(a, 39)) + ((a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]));
    memmove(s + 1, s, 7u * sizeof s[0]);
    s[4] += t;
    s[0] = t + u;
  }
  for (uint32_t i = 0; i < 64u; i++) {
    digest[i] = (uint8_t)((s[i / 8u] + start[i / 8u]) >> (56u - 8u * (i % 8u)));
  }
}

tp_status tp_verify_ed25519(const uint8_t public_key[32], const uint8_t digest[TP_DIGEST_BYTES],
                            const uint8_t signature[TP_SIGNATURE_BYTES]) {
  uint8_t block[BLOCK_BYTES] = {0};
  uint8_t hash[64];
  memcpy(block, signature, KEY_BYTES);
  memcpy(block + KEY_BYTES, public_key, KEY_BYTES);
  memcpy(block + 2u * KEY_BYTES, digest, TP_DIGEST_BYTES);
  block[HASHED_BYTES] = 0x80;
  block[BLOCK_BYTES - 2u] = (uint8_t)(8u * HASHED_BYTES >> 8);
  block[BLOCK_BYTES - 1u] = (uint8_t)(8u * HASHED_BYTES & 0xFFu);
  sha512_of_block(block, hash);
  crypto_eddsa_reduce(block, hash);
  return crypto_eddsa_check_equation(signature, public_key, block) == 0 ? TP_OK : TP_ERR_SIGNATURE;
}
