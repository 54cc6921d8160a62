/* Bytes as a package for one of several firmwares: as they are, or with what a checksum or a comparison would stop at
 * put right. What is taken for valid is, by other means; what is loaded is all of it and nothing else. */
#include <string.h>

#include "harness.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static const uint8_t fingerprint[32] = {0x9B, 0x5F, 1, 2, 3};
/* A bias, LoRA of a dense layer, of a convolution with at most rank 2, and an offset. */
static const tp_package_tensor dense[] = {{1, 1, 12, 0, 0}, {1, 4, 5, 1, 0},  {7, 4, 1, 1, 0},
                                          {1, 2, 99, 1, 0}, {4, 2, 1, 1, 0}, {1, 1, 7, 0, 0}};
static const tp_package_tensor plain[] = {{1, 1, 16, 0, 0}};
/* Two ranks share a byte. */
static const tp_package_tensor narrow[] = {{1, 3, 8, 1, 1}, {1, 3, 1, 1, 0}};
static const tp_package_tensor strided[] = {{3, 8, 2, 1, 0}, {5, 3, 2, 1, 0}, {2, 1, 3, 1, 0}};

static const tp_package_info infos[] = {
    {fingerprint, 0x11223344u, 273, TP_METHOD_LORA | TP_METHOD_MODULES_TO_SAVE, 4, dense, COUNT(dense)},
    {fingerprint, 0x00000000u, 16, TP_METHOD_BITFIT, 0, plain, COUNT(plain)},
    {fingerprint, 0xFFFFFFFFu, 11, TP_METHOD_LORA, 3, narrow, COUNT(narrow)},
    {fingerprint, 0x80000000u, 84, TP_METHOD_LORA | TP_METHOD_IA3, 8, strided, COUNT(strided)},
};

#define PACKAGE_BYTES_MAX 600u

enum { FITS = 1, CRC = 2, SHA = 4, SIGNED = 8, SIGNATURE = 16, KEY = 32, READER_FAILS = 64 };

/* Where each number of a header lies. */
static const uint8_t places[] = {0, 4, 6, 8, 9, 12, 44, 48, 72, 74, 76, 78};

/* What a firmware compares with its own, but for what a package may choose: rank, id, version, counter. */
static uint32_t make_fit(uint8_t *package, uint32_t bytes, const tp_package_info *info, uint32_t flags) {
  tp_package_identity identity = {.id = "a"};
  if (tp_id_valid((const char *)package + 48)) {
    memcpy(identity.id, package + 48, TP_ID_BYTES);
  }
  memcpy(&identity.version, package + 64, sizeof identity.version);
  memcpy(&identity.counter, package + 68, sizeof identity.counter);
  const uint32_t rank = info->rank == 0 ? 0 : 1u + package[74] % info->rank;
  const uint32_t whole = put_package_header(package, info, &identity, rank, flags);
  if (whole > bytes) {
    memset(package + bytes, 0, whole - bytes);
  }
  return whole;
}

/* Byte by byte where tp_package_load() moves rows. */
NOT_TRACED static void check_loaded(const tp_package_info *info, const tp_package_header *header,
                                    const uint8_t *package, const uint8_t *adapter) {
  const uint8_t *from = package + TP_PACKAGE_HEADER_BYTES;
  for (uint32_t i = 0; i < info->tensor_count; i++) {
    const tp_package_tensor *t = &info->tensors[i];
    const uint32_t outer = t->fixed ? 1u : t->outer, ranks = t->fixed ? 1u : t->rank;
    const uint32_t given = t->ranked && !t->fixed && header->rank < ranks ? header->rank : ranks;
    for (uint32_t o = 0; o < outer; o++) {
      for (uint32_t at = 0; at < ranks * t->inner; at++) {
        require(*adapter++ == (at < given * t->inner ? *from++ : 0), "a loaded tensor is the package's");
      }
    }
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static guarded packages, adapters;
  fuzz_input input = {data, (uint32_t)size};
  const tp_package_info *info = &infos[take_u8(&input) % COUNT(infos)];
  const uint32_t mode = take_u8(&input);
  const uint32_t change = take_u8(&input);
  uint32_t bytes = PACKAGE_BYTES_MAX;
  const uint8_t *from = take_bytes(&input, &bytes);
  uint8_t *package = guard(&packages, PACKAGE_BYTES_MAX);
  memset(package, 0, PACKAGE_BYTES_MAX);
  if (bytes > 0) {
    memcpy(package, from, bytes);
  }
  if ((mode & FITS) != 0) {
    bytes = make_fit(package, bytes, info, (mode & SIGNED) != 0 ? TP_PACKAGE_SIGNED : 0u);
  }
  if (change > 0) { /* one bit of one number, which all else is then made to match */
    package[places[change % COUNT(places)]] ^= (uint8_t)(1u << change / COUNT(places) % 8u);
  }
  seal_package(package, bytes, ((mode & CRC) != 0 ? SEAL_CRC : 0u) | ((mode & SHA) != 0 ? SEAL_SHA : 0u) |
                                   ((mode & SIGNATURE) != 0 ? SEAL_SIGNATURE : 0u));
  package = guard(&packages, bytes);

  strict_bytes reader = {package, bytes, (mode & READER_FAILS) != 0 ? bytes * 2u / 3u : UINT32_MAX};
  const tp_security security = {.verify_sig = verify_fake_signature};
  const int with_key = (mode & KEY) != 0;
  tp_package_header header;
  memset(&header, 0xA5, sizeof header);
  const tp_status status = tp_package_verify(info, read_strictly, &reader, bytes, with_key ? &security : NULL, &header);
  require(status <= TP_OK, "a status");
  if (status == TP_OK) {
    require(header.package_bytes == bytes && tp_id_valid(header.identity.id), "a valid package's header");
    require(header.payload_bytes == payload_at(info, header.rank), "a valid package's payload");
    require(is_sealed(package, bytes, with_key), "a valid package's checksums");
  }

  /* Loading asks for less than verifying: what lies in a slot was verified when it came. */
  if (bytes >= TP_PACKAGE_HEADER_BYTES && tp_package_parse(package, &header) == TP_OK &&
      tp_package_fits(info, &header) == TP_OK && header.package_bytes <= bytes) {
    uint8_t *adapter = guard(&adapters, info->payload_bytes - PLANTED_BYTES);
    const tp_status loaded = tp_package_load(info, read_strictly, &reader, &header, adapter);
    require(loaded == TP_OK || status != TP_OK, "what is valid can be loaded");
    if (loaded == TP_OK) {
      check_loaded(info, &header, package, adapter);
    }
  }
  return 0;
}
