/* The adapter package: 52 bytes of header, the adapter weights, a CRC-32. All numbers little-endian.
 *
 * offset size
 *  0      4   "TPAD"
 *  4      2   format version, 1
 *  6      2   header bytes, 52
 *  8      4   payload bytes
 * 12     32   fingerprint: SHA-256 of the base model
 * 44      4   layout: CRC-32 of the list of adapter tensors (names, types, shapes)
 * 48      4   reserved, 0
 * 52      n   payload: the adapter tensors one after the other, as in the generated struct
 * 52+n    4   CRC-32 of everything before it
 */
#ifndef TP_PACKAGE_H
#define TP_PACKAGE_H

#include "tp_types.h"

#define TP_PACKAGE_HEADER_BYTES 52u
#define TP_PACKAGE_OVERHEAD_BYTES 56u

typedef struct {
  const uint8_t *fingerprint; /* 32 bytes */
  uint32_t layout;
  uint32_t payload_bytes;
} tp_package_info;

/* Write a package of info->payload_bytes + TP_PACKAGE_OVERHEAD_BYTES to `package`; TP_ERR_SIZE if it does not fit. */
tp_status tp_package_write(const tp_package_info *info, const void *payload, uint8_t *package, uint32_t capacity);

/* Check a whole package against `info`; on TP_OK, *payload points into it. */
tp_status tp_package_check(const tp_package_info *info, const uint8_t *package, uint32_t bytes,
                           const uint8_t **payload);

#endif
