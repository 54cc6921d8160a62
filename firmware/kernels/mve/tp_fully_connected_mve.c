#include "tinypeft/tp_mve.h"

#if defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 1)

/* The accumulators of four channels of one position; filter is moved behind theirs. */
static inline int32x4_t four_channels(const int8_t *row, const int8_t **filter, int32_t chunks) {
  int32_t a0 = 0, a1 = 0, a2 = 0, a3 = 0;
  int8x16_t x, w;
  int32x4_t acc;
  const int8_t *packed = *filter;
  __asm__ volatile(
      "dls lr, %[chunks]\n"
      "1:\n"
      "vldrb.8 %q[x], [%[row]], #16\n"
      "vldrb.8 %q[w], [%[filter]], #16\n"
      "vmladava.s8 %[a0], %q[x], %q[w]\n"
      "vldrb.8 %q[w], [%[filter]], #16\n"
      "vmladava.s8 %[a1], %q[x], %q[w]\n"
      "vldrb.8 %q[w], [%[filter]], #16\n"
      "vmladava.s8 %[a2], %q[x], %q[w]\n"
      "vldrb.8 %q[w], [%[filter]], #16\n"
      "vmladava.s8 %[a3], %q[x], %q[w]\n"
      "le lr, 1b\n"
      "vmov %q[acc][2], %q[acc][0], %[a0], %[a2]\n"
      "vmov %q[acc][3], %q[acc][1], %[a1], %[a3]\n"
      : [a0] "+&Te"(a0), [a1] "+&Te"(a1), [a2] "+&Te"(a2), [a3] "+&Te"(a3), [x] "=&w"(x), [w] "=&w"(w),
        [acc] "=&w"(acc), [row] "+r"(row), [filter] "+r"(packed)
      : [chunks] "r"(chunks)
      : "lr", "memory");
  *filter = packed;
  return acc;
}

/* What up to four accumulators of one position become. */
static inline void put(const tp_fully_connected_mve_params *params, int32x4_t value, int32_t c,
                       const int32_t *multiplier, const int32_t *shift, int8_t *output) {
  value = vrshlq_s32(vmulhq_s32(value, vldrwq_s32(multiplier + c)), vldrwq_s32(shift + c));
  value = vmaxq_s32(vaddq_n_s32(value, params->output_offset), vdupq_n_s32(params->activation_min));
  value = vminq_s32(value, vdupq_n_s32(params->activation_max));
  if (params->output_c - c >= 4) {
    vstrbq_s32(output + c, value);
  } else {
    vstrbq_p_s32(output + c, value, vctp32q((uint32_t)(params->output_c - c)));
  }
}

/* Where the inputs of a position are read: in scratch, if there is any, so that outputs may lie over them. */
static inline const int8_t *row_of(const tp_fully_connected_mve_params *params, const int8_t *input, void *scratch) {
  if (scratch == NULL) {
    return input;
  }
  tp_copy_mve_s8(scratch, input, params->input_c);
  return scratch;
}

void tp_fully_connected_mve_s8(const tp_fully_connected_mve_params *params, const int8_t *input, const int32_t *filter,
                               const int32_t *bias, const int32_t *multiplier, const int32_t *shift, int8_t *output,
                               void *scratch) {
  for (int32_t p = 0; p < params->positions; p++) {
    const int8_t *packed = (const int8_t *)filter;
    const int8_t *row = row_of(params, input, scratch);
    for (int32_t c = 0; c < params->output_c; c += 4) {
      const int32x4_t acc = four_channels(row, &packed, params->row_bytes / 16);
      put(params, vaddq_s32(acc, vldrwq_s32(bias + c)), c, multiplier, shift, output);
    }
    input += params->input_c;
    output += params->output_c;
  }
}

/* What a LoRA adds to up to four channels from c on. */
static inline int32x4_t addend(const tp_fully_connected_mve_params *params, const int16_t *hidden, const int8_t *lora_B,
                               const int8_t *lora_shift, int32_t c) {
  const mve_pred16_t some = vctp32q((uint32_t)(params->output_c - c));
  const uint32x4_t rows = tp_offsets_mve(params->rank, 3);
  const int8_t *b = lora_B + c * params->rank;
  int32x4_t sum = vdupq_n_s32(0);
  for (int32_t r = 0; r < params->rank; r++) {
    sum = vmlaq_n_s32(sum, vldrbq_gather_offset_z_s32(b + r, rows, some), hidden[r]);
  }
  return vrshlq_s32(sum, vnegq_s32(vldrbq_z_s32(lora_shift + c, some)));
}

void tp_fully_connected_lora_mve_s8(const tp_fully_connected_mve_params *params, const int8_t *input,
                                    const int32_t *filter, const int32_t *bias, const int32_t *multiplier,
                                    const int32_t *shift, const int16_t *hidden, const int8_t *lora_B,
                                    const int8_t *lora_shift, int8_t *output, void *scratch) {
  for (int32_t p = 0; p < params->positions; p++) {
    const int8_t *packed = (const int8_t *)filter;
    const int8_t *row = row_of(params, input, scratch);
    for (int32_t c = 0; c < params->output_c; c += 4) {
      int32x4_t acc = four_channels(row, &packed, params->row_bytes / 16);
      acc = vaddq_s32(acc, addend(params, hidden, lora_B, lora_shift, c));
      put(params, vaddq_s32(acc, vldrwq_s32(bias + c)), c, multiplier, shift, output);
    }
    input += params->input_c;
    output += params->output_c;
    hidden += params->rank;
  }
}

#endif
