#include "tinypeft/tp_kernels.h"
#include "tinypeft/tp_kernels_dsp_backward.h"
#include "tinypeft/tp_pairs.h"

#define EVERY_BYTE 0x01010101u

/* What passes of four outputs are those that, less the first that does, are below a number of outputs; of each its bit
 * is added. */
void tp_clamp_mask_dsp_s8(const tp_clamp_mask_params *params, const int8_t *output, uint8_t *mask) {
  const int32_t low = params->activation_min + 1, count = tp_max_s32(params->activation_max - low, 0);
  const uint32_t first = (uint32_t)(low & 0xFF) * EVERY_BYTE, limit = (uint32_t)count * EVERY_BYTE;
  for (const int8_t *end = output + params->size; output < end; output += 8) {
    const uint32_t a = tp_usub8(tp_load_word(output), first), b = tp_usub8(tp_load_word(output + 4), first);
    const uint32_t bits = tp_add_bytes(tp_where_below_u8x4(0x08040201u, a, limit), 0);
    *mask++ = (uint8_t)tp_add_bytes(tp_where_below_u8x4(0x80402010u, b, limit), bits);
  }
}
