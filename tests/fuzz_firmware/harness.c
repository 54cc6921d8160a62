#include "harness.h"

#include <sanitizer/asan_interface.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tinypeft/tp_bytes.h"
#include "tinypeft/tp_crc.h"
#include "tinypeft/tp_sha256.h"

/* Returns where the next number goes. */
static uint8_t *put_u32(uint8_t *at, uint32_t value) {
  tp_put_u32(at, value);
  return at + 4;
}

uint32_t take_u8(fuzz_input *input) {
  if (input->left == 0) {
    return 0;
  }
  input->left--;
  return *input->data++;
}

uint32_t take_u16(fuzz_input *input) {
  const uint32_t low = take_u8(input);
  return low | take_u8(input) << 8;
}

uint32_t take_u32(fuzz_input *input) {
  const uint32_t low = take_u16(input);
  return low | take_u16(input) << 16;
}

const uint8_t *take_bytes(fuzz_input *input, uint32_t *length) {
  const uint8_t *bytes = input->data;
  *length = *length < input->left ? *length : input->left;
  input->data += *length;
  input->left -= *length;
  return bytes;
}

void require(int holds, const char *what) {
  if (!holds) {
    fprintf(stderr, "does not hold: %s\n", what);
    abort();
  }
}

uint8_t *guard(guarded *memory, uint32_t bytes) {
  require(bytes <= GUARDED_BYTES, "there is so much guarded memory");
  __asan_unpoison_memory_region(memory->memory, sizeof memory->memory);
  __asan_poison_memory_region(memory->memory, GUARD_BYTES);
  uint8_t *start = memory->memory + GUARD_BYTES;
  __asan_poison_memory_region(start + bytes, sizeof memory->memory - GUARD_BYTES - bytes);
  return start;
}

tp_status read_strictly(void *context, uint32_t offset, void *data, uint32_t length) {
  const strict_bytes *from = context;
  require(offset <= from->length && length <= from->length - offset, "only what is there is read");
  if (offset + length > from->fails_at) {
    return TP_ERR_FLASH;
  }
  memcpy(data, from->bytes + offset, length);
  return TP_OK;
}

static void fake_signature(const uint8_t *digest, uint8_t *signature) {
  for (uint32_t i = 0; i < TP_SIGNATURE_BYTES; i++) {
    signature[i] = (uint8_t)(digest[i % TP_DIGEST_BYTES] ^ (0x5Au + i));
  }
}

tp_status verify_fake_signature(void *context, const uint8_t *digest, const uint8_t *signature) {
  (void)context;
  uint8_t expected[TP_SIGNATURE_BYTES];
  fake_signature(digest, expected);
  return memcmp(expected, signature, sizeof expected) == 0 ? TP_OK : TP_ERR_SIGNATURE;
}

static void digest_of(const uint8_t *bytes, uint32_t length, uint8_t *digest) {
  tp_sha256 sha;
  tp_sha256_begin(&sha);
  tp_sha256_update(&sha, bytes, length);
  tp_sha256_finish(&sha, digest);
}

/* Bytes in front of the CRC-32 of a package of that size; UINT32_MAX where it is too short. */
static uint32_t covered(const uint8_t *package, uint32_t bytes) {
  const uint32_t behind = TP_PACKAGE_OVERHEAD_BYTES - TP_PACKAGE_HEADER_BYTES;
  const int has_flag = bytes >= TP_PACKAGE_HEADER_BYTES && (package[76] & TP_PACKAGE_SIGNED) != 0;
  const uint32_t around = behind + (has_flag ? TP_SIGNATURE_BYTES : 0u);
  return bytes >= TP_PACKAGE_HEADER_BYTES + around ? bytes - around : UINT32_MAX;
}

void seal_package(uint8_t *package, uint32_t bytes, uint32_t what) {
  const uint32_t end = covered(package, bytes);
  if (end == UINT32_MAX) {
    return;
  }
  uint8_t *crc = package + end, *sha = crc + 4, *signature = sha + TP_DIGEST_BYTES;
  if ((what & SEAL_CRC) != 0) {
    (void)put_u32(crc, tp_crc32(0, package, end));
  }
  if ((what & SEAL_SHA) != 0) {
    digest_of(package, end + 4u, sha);
  }
  if ((what & SEAL_SIGNATURE) != 0 && signature < package + bytes) {
    fake_signature(sha, signature);
  }
}

int is_sealed(const uint8_t *package, uint32_t bytes, int with_signature) {
  static uint8_t copy[4096];
  if (bytes > sizeof copy || covered(package, bytes) == UINT32_MAX) {
    return 0;
  }
  memcpy(copy, package, bytes);
  seal_package(copy, bytes, SEAL_CRC | SEAL_SHA | (with_signature ? SEAL_SIGNATURE : 0u));
  return memcmp(copy, package, bytes) == 0 && (!with_signature || (package[76] & TP_PACKAGE_SIGNED) != 0);
}

uint32_t payload_at(const tp_package_info *info, uint32_t rank) {
  uint32_t bytes = 0;
  for (uint32_t i = 0; i < info->tensor_count; i++) {
    const tp_package_tensor *t = &info->tensors[i];
    const uint32_t ranks = t->ranked && rank < t->rank ? rank : t->rank;
    bytes += t->fixed ? t->inner : t->outer * ranks * t->inner;
  }
  return bytes;
}

uint32_t put_package_header(uint8_t *package, const tp_package_info *info, const tp_package_identity *identity,
                            uint32_t rank, uint32_t flags) {
  const uint32_t payload = payload_at(info, rank);
  memcpy(package, "TPAD", 4);
  uint8_t *at = put_u32(package + 4, TP_PACKAGE_FORMAT | TP_PACKAGE_HEADER_BYTES << 16);
  at = put_u32(at, payload);
  memcpy(at, info->fingerprint, 32);
  at = put_u32(at + 32, info->layout);
  memcpy(at, identity->id, TP_ID_BYTES);
  at = put_u32(at + TP_ID_BYTES, identity->version);
  at = put_u32(at, identity->counter);
  at = put_u32(at, info->method | rank << 16);
  (void)put_u32(at, flags);
  return payload + TP_PACKAGE_OVERHEAD_BYTES + ((flags & TP_PACKAGE_SIGNED) != 0 ? TP_SIGNATURE_BYTES : 0u);
}

/* Deltas: the encoder for STORAGE.md's range decoder. */

typedef struct {
  uint64_t low;
  uint32_t range;
  uint8_t *bytes;
  uint32_t used, capacity;
  uint32_t pending; /* bytes of 0xFF that a carry may still change, behind `cache` */
  uint8_t cache;
} encoder;

static void put_coded(encoder *to, uint8_t byte) {
  if (to->used < to->capacity) {
    to->bytes[to->used] = byte;
  }
  to->used++;
}

static void shift_low(encoder *to) {
  const uint8_t carry = (uint8_t)(to->low >> 32 & 1u);
  if (to->low < 0xFF000000u || carry != 0) {
    put_coded(to, (uint8_t)(to->cache + carry));
    for (; to->pending > 0; to->pending--) {
      put_coded(to, (uint8_t)(0xFFu + carry));
    }
    to->cache = (uint8_t)(to->low >> 24 & 0xFFu);
  } else {
    to->pending++;
  }
  to->low = (to->low & 0x00FFFFFFu) << 8;
}

typedef struct {
  uint32_t probability, shift;
} bit_model;

static void encode_bit(encoder *to, bit_model *model, uint32_t bit) {
  for (; to->range < 1u << 24; to->range <<= 8) {
    shift_low(to);
  }
  const uint32_t bound = (to->range >> 11) * model->probability;
  if (bit == 0) {
    to->range = bound;
    model->probability += (2048u - model->probability) >> model->shift;
  } else {
    to->low += bound;
    to->range -= bound;
    model->probability -= model->probability >> model->shift;
  }
  model->shift += model->shift < 5u ? 1u : 0u;
}

void put_delta_header(uint8_t *delta, const uint8_t *old, uint32_t old_bytes, uint32_t new_bytes) {
  uint8_t digest[TP_DIGEST_BYTES];
  digest_of(old, old_bytes, digest);
  memcpy(delta, "TPDL", 4);
  uint8_t *at = put_u32(delta + 4, TP_DELTA_FORMAT | TP_DELTA_HEADER_BYTES << 16);
  at = put_u32(put_u32(at, old_bytes), new_bytes);
  memcpy(at, digest, TP_DELTA_DIGEST_BYTES);
}

uint32_t make_delta(const uint8_t *old, uint32_t old_bytes, const uint8_t *new, uint32_t new_bytes, uint8_t *delta,
                    uint32_t capacity) {
  static uint8_t coded[8192];
  encoder to = {.range = UINT32_MAX, .bytes = coded, .capacity = sizeof coded};
  bit_model changed[4], tree[256];
  uint32_t history = 0;
  for (uint32_t i = 0; i < 256u; i++) {
    changed[i % 4u] = tree[i] = (bit_model){1024u, 1u};
  }
  for (uint32_t i = 0; i < new_bytes; i++) {
    const uint32_t change = (new[i] - (i < old_bytes ? old[i] : 0u)) & 0xFFu;
    encode_bit(&to, &changed[history], change != 0 ? 1u : 0u);
    history = (history << 1 | (change != 0 ? 1u : 0u)) % 4u;
    if (change != 0) {
      const uint32_t value = change <= 128u ? 2u * (change - 1u) : 2u * (256u - change) - 1u;
      for (uint32_t node = 1, bit = 8; bit-- > 0;) {
        const uint32_t one = value >> bit & 1u;
        encode_bit(&to, &tree[node], one);
        node = 2u * node + one;
      }
    }
  }
  for (uint32_t i = 0; i < 5u; i++) {
    shift_low(&to);
  }
  /* the first byte is what the cache began with */
  const uint32_t bytes = TP_DELTA_HEADER_BYTES + to.used - 1u;
  if (to.used > sizeof coded || bytes > capacity) {
    return 0;
  }
  put_delta_header(delta, old, old_bytes, new_bytes);
  memcpy(delta + TP_DELTA_HEADER_BYTES, coded + 1, to.used - 1u);
  return bytes;
}
