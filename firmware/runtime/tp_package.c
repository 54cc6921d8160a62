#include "tinypeft/tp_package.h"

#include <string.h>

#include "tinypeft/tp_crc.h"

#define FORMAT_VERSION 1u

static void put_u16(uint8_t *at, uint32_t value) {
  at[0] = (uint8_t)(value & 0xFFu);
  at[1] = (uint8_t)(value >> 8 & 0xFFu);
}

static void put_u32(uint8_t *at, uint32_t value) {
  put_u16(at, value);
  put_u16(at + 2, value >> 16);
}

static uint32_t get_u16(const uint8_t *at) { return (uint32_t)at[0] | (uint32_t)at[1] << 8; }

static uint32_t get_u32(const uint8_t *at) { return get_u16(at) | get_u16(at + 2) << 16; }

tp_status tp_package_write(const tp_package_info *info, const void *payload, uint8_t *package, uint32_t capacity) {
  if (capacity < info->payload_bytes + TP_PACKAGE_OVERHEAD_BYTES) {
    return TP_ERR_SIZE;
  }
  memcpy(package, "TPAD", 4);
  put_u16(package + 4, FORMAT_VERSION);
  put_u16(package + 6, TP_PACKAGE_HEADER_BYTES);
  put_u32(package + 8, info->payload_bytes);
  memcpy(package + 12, info->fingerprint, 32);
  put_u32(package + 44, info->layout);
  put_u32(package + 48, 0);
  memcpy(package + TP_PACKAGE_HEADER_BYTES, payload, info->payload_bytes);
  const uint32_t covered = TP_PACKAGE_HEADER_BYTES + info->payload_bytes;
  put_u32(package + covered, tp_crc32(0, package, covered));
  return TP_OK;
}

tp_status tp_package_check(const tp_package_info *info, const uint8_t *package, uint32_t bytes,
                           const uint8_t **payload) {
  if (bytes < TP_PACKAGE_OVERHEAD_BYTES || memcmp(package, "TPAD", 4) != 0 || get_u16(package + 4) != FORMAT_VERSION ||
      get_u16(package + 6) != TP_PACKAGE_HEADER_BYTES) {
    return TP_ERR_FORMAT;
  }
  if (get_u32(package + 8) != bytes - TP_PACKAGE_OVERHEAD_BYTES) {
    return TP_ERR_SIZE;
  }
  if (get_u32(package + bytes - 4u) != tp_crc32(0, package, bytes - 4u)) {
    return TP_ERR_CHECKSUM;
  }
  if (memcmp(package + 12, info->fingerprint, 32) != 0) {
    return TP_ERR_FINGERPRINT;
  }
  if (get_u32(package + 8) != info->payload_bytes || get_u32(package + 44) != info->layout) {
    return TP_ERR_SIZE;
  }
  *payload = package + TP_PACKAGE_HEADER_BYTES;
  return TP_OK;
}
