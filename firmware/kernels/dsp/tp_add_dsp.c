#include "tinypeft/tp_arithmetic.h"
#include "tinypeft/tp_kernels_dsp_elementwise.h"
#include "tinypeft/tp_limited_rows.h"
#include "tinypeft/tp_simd.h"

#define XSTR(x) STR(x)
#define STR(x) #x
/* Bytes in the upper halves of halfwords. */
#define UPPER 0xFF00FF00u

TP_ALWAYS_INLINE int32_t saturated_result(int32_t sum) {
  int32_t result;
  __asm__("ssat %0, #8, %1, asr #" XSTR(TP_PLANE_SHIFT) : "=r"(result) : "r"(sum));
  return result;
}

/* `limited` is a constant: whether the activation has limits of its own. */
TP_ALWAYS_INLINE int8_t limited_result(const tp_add_plane_params *params, int32_t result, int32_t limited) {
  return (int8_t)(limited ? tp_clamp_s32(result, params->activation_min, params->activation_max) : result);
}

/* Four elements. Their bytes become the upper halves of halfwords, so that one multiplication takes each. */
TP_ALWAYS_INLINE void plane_four(const tp_add_plane_params *params, uint32_t x, uint32_t y, uint32_t upper,
                              int32_t limited, int8_t *output) {
  uint32_t even, other;
  int32_t first, second;
  __asm__(
      "and %[even], %[upper], %[x], lsl #8\n\t"
      "and %[x], %[upper], %[x]\n\t"
      "smlawb %[first], %[factor1], %[even], %[start]\n\t"
      "smlawt %[even], %[factor1], %[even], %[start]\n\t"
      "smlawb %[second], %[factor1], %[x], %[start]\n\t"
      "smlawt %[x], %[factor1], %[x], %[start]\n\t"
      "and %[other], %[upper], %[y], lsl #8\n\t"
      "and %[y], %[upper], %[y]\n\t"
      "smlawb %[first], %[factor2], %[other], %[first]\n\t"
      "smlawt %[even], %[factor2], %[other], %[even]\n\t"
      "smlawb %[second], %[factor2], %[y], %[second]\n\t"
      "smlawt %[x], %[factor2], %[y], %[x]\n\t"
      : [x] "+r"(x), [y] "+r"(y), [even] "=&r"(even), [other] "=&r"(other), [first] "=&r"(first),
        [second] "=&r"(second)
      : [factor1] "r"(params->factor1), [factor2] "r"(params->factor2), [start] "r"(params->start),
        [upper] "r"(upper));
  output[0] = limited_result(params, saturated_result(first), limited);
  output[1] = limited_result(params, saturated_result(second), limited);
  output[2] = limited_result(params, saturated_result((int32_t)even), limited);
  output[3] = limited_result(params, saturated_result((int32_t)x), limited);
}

TP_ALWAYS_INLINE void plane(const tp_add_plane_params *given, int32_t count, const int8_t *input1, const int8_t *input2,
                         int8_t *output, int32_t limited) {
  const tp_add_plane_params params = *given; /* in registers, whatever output overwrites */
  for (int32_t i = count >> 3; i > 0; i--) {
    const uint32_t x = tp_load_word(input1), y = tp_load_word(input2);
    plane_four(&params, x, y, UPPER, limited, output);
    const uint32_t next_x = tp_load_word(input1 + 4), next_y = tp_load_word(input2 + 4);
    plane_four(&params, next_x, next_y, UPPER, limited, output + 4);
    input1 += 8;
    input2 += 8;
    output += 8;
  }
  for (int32_t i = 0; i < (count & 7); i++) {
    const uint32_t x = (uint32_t)input1[i] << 8, y = (uint32_t)input2[i] << 8;
    const int32_t sum = tp_smlawb(params.factor2, y, tp_smlawb(params.factor1, x, params.start));
    output[i] = limited_result(&params, saturated_result(sum), limited);
  }
}

TP_LIMITED_ROWS(plane)

void tp_add_plane_dsp(const tp_add_plane_params *params, const int8_t *input1, const int8_t *input2, int8_t *output) {
  const int32_t limited = tp_is_limited(params->activation_min, params->activation_max);
  tp_for_each_row(&params->broadcast, limited ? limited_row : free_row, params, input1, input2, output);
}

static TP_NOINLINE void terms_row(const void *params, const tp_loop *row, const int8_t *input1, const int8_t *input2,
                      int8_t *output) {
  const tp_add_terms_params *p = params;
  const int32_t *terms1 = p->terms1, *terms2 = p->terms2;
  const int32_t multiplier = p->multiplier, shift = p->shift, offset = p->output_offset;
  const int32_t low = p->activation_min, high = p->activation_max;
  for (int32_t i = row->extent; i > 0; i--) {
    const int32_t sum = terms1[(uint8_t)*input1++] + terms2[(uint8_t)*input2++];
    *output++ = (int8_t)tp_clamp_s32(tp_requantize_doubled(sum, multiplier, shift, offset), low, high);
  }
}

void tp_add_terms_dsp(const tp_add_terms_params *params, const int8_t *input1, const int8_t *input2, int8_t *output) {
  tp_for_each_row(&params->broadcast, terms_row, params, input1, input2, output);
}
