/* Numbers in bytes that are aligned to nothing: little-endian as the processor, big-endian where the name ends in be. */
#ifndef TP_BYTES_H
#define TP_BYTES_H

#include <stdint.h>
#include <string.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "numbers on flash and in packages are little-endian, and so must the processor be"
#endif

static inline uint32_t tp_get_u32(const uint8_t *at) {
  uint32_t value;
  memcpy(&value, at, sizeof value);
  return value;
}

static inline void tp_put_u32(uint8_t *at, uint32_t value) { memcpy(at, &value, sizeof value); }

/* With its bytes the other way round. */
static inline uint32_t tp_swap_u32(uint32_t value) {
  return value >> 24 | (value >> 8 & 0xFF00u) | (value & 0xFF00u) << 8 | value << 24;
}

static inline uint32_t tp_get_u32be(const uint8_t *at) { return tp_swap_u32(tp_get_u32(at)); }

static inline void tp_put_u32be(uint8_t *at, uint32_t value) { tp_put_u32(at, tp_swap_u32(value)); }

static inline uint32_t tp_get_u16be(const uint8_t *at) { return (uint32_t)at[0] << 8 | (uint32_t)at[1]; }

static inline void tp_put_u16be(uint8_t *at, uint32_t value) {
  at[0] = (uint8_t)(value >> 8 & 0xFFu);
  at[1] = (uint8_t)(value & 0xFFu);
}

#endif
