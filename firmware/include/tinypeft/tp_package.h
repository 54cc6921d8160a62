/* The adapter package, format 2: a header, the adapter weights, checksums and, where signed, a signature.
 * All numbers little-endian; firmware/STORAGE.md says more.
 *
 * offset size
 *  0      4   "TPAD"
 *  4      2   format version, 2
 *  6      2   header bytes, 80
 *  8      4   payload bytes, n
 * 12     32   fingerprint: SHA-256 of the base model
 * 44      4   layout: CRC-32 of the list of adapter tensors (names, types, shapes with the rank written as r)
 * 48     16   adapter id: 1 to 15 characters of a-z 0-9 . _ -, then zeros
 * 64      4   adapter version
 * 68      4   security counter
 * 72      2   method: TP_METHOD_* of the adapters in it
 * 74      2   rank: no layer has more rows; 0 where no kind has a rank
 * 76      2   flags: TP_PACKAGE_SIGNED
 * 78      2   reserved, 0
 * 80      n   payload: the adapter tensors one after the other
 * 80+n    4   CRC-32 of everything before it
 * 84+n   32   SHA-256 of everything before it
 * 116+n  64   where signed: the Ed25519 signature of those 32 bytes
 */
#ifndef TP_PACKAGE_H
#define TP_PACKAGE_H

#include "tp_id.h"
#include "tp_security.h"
#include "tp_types.h"

#define TP_PACKAGE_FORMAT 2u
#define TP_PACKAGE_HEADER_BYTES 80u
#define TP_PACKAGE_OVERHEAD_BYTES 116u /* without a signature */
#define TP_PACKAGE_SIGNED 1u

/* What is in a package, one bit a kind of adapter. */
#define TP_METHOD_LORA 0x0001u
#define TP_METHOD_BOTTLENECK 0x0002u
#define TP_METHOD_PARALLEL_BOTTLENECK 0x0004u
#define TP_METHOD_BITFIT 0x0008u
#define TP_METHOD_IA3 0x0010u
#define TP_METHOD_SPARSE 0x0020u
#define TP_METHOD_INPUT_OFFSET 0x0040u
#define TP_METHOD_MODULES_TO_SAVE 0x0080u

/* An adapter tensor. `ranked`: it has the rank as an axis, `outer` times `rank` times `inner` bytes; a smaller package
 * has the first ranks of it, and zeros take the place of the others. Not `ranked`: outer and rank are 1, `inner` all of
 * its bytes. `fixed`: two ranks share a byte, so that a package has all of `rank`; `inner` are all bytes. */
typedef struct {
  uint32_t outer, rank, inner;
  uint8_t ranked, fixed;
} tp_package_tensor;

/* What a firmware takes: generated. */
typedef struct {
  const uint8_t *fingerprint; /* 32 bytes */
  uint32_t layout;
  uint32_t payload_bytes; /* at the largest rank: the size of the adapter in memory */
  uint16_t method, rank;
  const tp_package_tensor *tensors;
  uint32_t tensor_count;
} tp_package_info;

/* Who an adapter is. */
typedef struct {
  char id[TP_ID_BYTES];
  uint32_t version, counter;
} tp_package_identity;

/* A header, laid out as in a package, and how long that is. */
typedef struct {
  uint8_t magic[4];
  uint16_t format, header_bytes;
  uint32_t payload_bytes;
  uint8_t fingerprint[32];
  uint32_t layout;
  tp_package_identity identity;
  uint16_t method, rank, flags, reserved;
  uint32_t package_bytes; /* not in the package: of all of it */
} tp_package_header;

/* Reads `length` bytes from `offset` of a package; tp_store_read_upload() is one. */
typedef tp_status (*tp_package_reader)(void *context, uint32_t offset, void *data, uint32_t length);

/* Read a header; TP_ERR_FORMAT where it is none of this format, TP_ERR_ID where its id is none. */
tp_status tp_package_parse(const uint8_t bytes[TP_PACKAGE_HEADER_BYTES], tp_package_header *header);

/* Whether a firmware can use it: TP_ERR_FINGERPRINT, TP_ERR_LAYOUT (tensors or method), TP_ERR_RANK (above the
 * firmware's, or below that of a fixed tensor), TP_ERR_SIZE (of the payload). */
tp_status tp_package_fits(const tp_package_info *info, const tp_package_header *header);

/* Check a whole package of `bytes` bytes behind `read`: header, use for this firmware, TP_ERR_TRUNCATED or TP_ERR_SIZE
 * where it is shorter or longer than its header says, TP_ERR_CHECKSUM, TP_ERR_HASH, TP_ERR_SIGNATURE. `security` may be
 * NULL. Security counters are not compared. */
tp_status tp_package_verify(const tp_package_info *info, tp_package_reader read, void *context, uint32_t bytes,
                            const tp_security *security, tp_package_header *header);

/* Read the payload of a verified package into the adapter struct, info->payload_bytes, and compare its CRC-32 on the
 * way: TP_ERR_CHECKSUM leaves the struct undefined. */
tp_status tp_package_load(const tp_package_info *info, tp_package_reader read, void *context,
                          const tp_package_header *header, void *adapter);

/* A tp_package_reader of bytes in memory; `context` is where they begin. */
tp_status tp_package_read_memory(void *context, uint32_t offset, void *data, uint32_t length);

/* Write an unsigned package of info->payload_bytes + TP_PACKAGE_OVERHEAD_BYTES to `package`; `identity` NULL: id
 * "adapter", version and counter 0. Errors: TP_ERR_ID, TP_ERR_SIZE if it does not fit. */
tp_status tp_package_write(const tp_package_info *info, const tp_package_identity *identity, const void *payload,
                           uint8_t *package, uint32_t capacity);

#endif
