#include "tinypeft/tp_kernels.h"
#include "tinypeft/tp_kernels_dsp_backward.h"
#include "tinypeft/tp_pairs.h"

#define EVERY_BYTE 0x01010101u

void tp_clamp_mask_dsp_s8(const tp_clamp_mask_params *params, const int8_t *output, uint8_t *mask) {
  const uint32_t low = (uint32_t)(params->activation_min & 0xFF) * EVERY_BYTE;
  const uint32_t high = (uint32_t)(params->activation_max & 0xFF) * EVERY_BYTE;
  const uint32_t gather = 0x10204080u; /* byte i times this has its lowest bit in bit 28 + i */
  for (const int8_t *end = output + params->size; output < end; output += 8) {
    const uint32_t first = tp_bytes_between(tp_load_word(output), low, high, EVERY_BYTE) * gather;
    const uint32_t second = tp_bytes_between(tp_load_word(output + 4), low, high, EVERY_BYTE) * gather;
    *mask++ = (uint8_t)(first >> 28 | second >> 28 << 4);
  }
}
