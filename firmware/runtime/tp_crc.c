#include "tinypeft/tp_crc.h"

uint16_t tp_crc16(const uint8_t *data, uint32_t length) {
  uint32_t crc = 0;
  for (uint32_t i = 0; i < length; i++) {
    /* The byte that leaves, times the polynomial x^12 + x^5 + 1, with what its upper bits bring back in. */
    uint32_t out = (crc >> 8 ^ data[i]) & 0xFFu;
    out ^= out >> 4;
    crc = crc << 8 ^ out << 12 ^ out << 5 ^ out;
  }
  return (uint16_t)(crc & 0xFFFFu);
}

uint32_t tp_crc32(uint32_t crc, const void *data, uint32_t length) {
  static const uint32_t table[16] = {0x00000000, 0x1DB71064, 0x3B6E20C8, 0x26D930AC, 0x76DC4190, 0x6B6B51F4,
                                     0x4DB26158, 0x5005713C, 0xEDB88320, 0xF00F9344, 0xD6D6A3E8, 0xCB61B38C,
                                     0x9B64C2B0, 0x86D3D2D4, 0xA00AE278, 0xBDBDF21C};
  const uint8_t *bytes = data;
  crc = ~crc;
  for (uint32_t i = 0; i < length; i++) {
    crc = (crc >> 4) ^ table[(crc ^ bytes[i]) & 15u];
    crc = (crc >> 4) ^ table[(crc ^ ((uint32_t)bytes[i] >> 4)) & 15u];
  }
  return ~crc;
}
