/* What the kernels for Helium share: copies of bytes, and the requantisation of four accumulators in a loop in
 * assembly. Empty where there is no Helium. */
#ifndef TP_MVE_H
#define TP_MVE_H

#include "tp_arithmetic.h"
#include "tp_kernels_mve.h"

#if defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 1)
#include <arm_mve.h>

#ifndef __OPTIMIZE__
#error "compile the kernels for Helium with optimisation: their loops take all registers"
#endif

/* to[0..count) = from[0..count). The loop's tail is predicated. */
static inline void tp_copy_mve_s8(int8_t *to, const int8_t *from, int32_t count) {
  int8x16_t chunk;
  __asm__ volatile(
      "wlstp.8 lr, %[count], 2f\n"
      "1: vldrb.8 %q[chunk], [%[from]], #16\n"
      "vstrb.8 %q[chunk], [%[to]], #16\n"
      "letp lr, 1b\n"
      "2:\n"
      : [to] "+r"(to), [from] "+r"(from), [chunk] "=&w"(chunk)
      : [count] "r"(count)
      : "lr", "memory");
}

/* to[0..count) = value. */
static inline void tp_fill_mve_s8(int8_t *to, int32_t value, int32_t count) {
  const int8x16_t chunk = vdupq_n_s8((int8_t)value);
  __asm__ volatile(
      "wlstp.8 lr, %[count], 2f\n"
      "1: vstrb.8 %q[chunk], [%[to]], #16\n"
      "letp lr, 1b\n"
      "2:\n"
      : [to] "+r"(to)
      : [count] "r"(count), [chunk] "w"(chunk)
      : "lr", "memory");
}

/* Assembly: four accumulators a0 to a3 of one channel, whose multiplier and shift are scalars, become outputs in %q[x].
 *
 * TP_FOUR_MVE               they are put into %q[x]
 * TP_BIAS_MVE               a scalar bias is added; or
 * TP_START_MVE              what [starts] points to, four values for each group; it uses %q[free]
 * TP_MULTIPLY_MVE           the first rounding
 * TP_CLAMPED_MVE(offset)    the second, offset and clamp, where no negative tie counts; TP_CLAMP_MVE are its inputs; or
 * TP_SATURATED_MVE(offset)  the same with the clamp of int8; or
 * TP_TIES_MVE(offset)       the same, ties away from zero, where shift is below 0; it uses %q[free] */
#define TP_FOUR_MVE                         \
  "vmov %q[x][2], %q[x][0], %[a0], %[a2]\n" \
  "vmov %q[x][3], %q[x][1], %[a1], %[a3]\n"
#define TP_BIAS_MVE "vadd.i32 %q[x], %q[x], %[bias]\n"
#define TP_START_MVE                      \
  "vldrw.32 %q[free], [%[starts]], #16\n" \
  "vadd.i32 %q[x], %q[x], %q[free]\n"
#define TP_MULTIPLY_MVE "vqrdmulh.s32 %q[x], %q[x], %[multiplier]\n"
#define TP_CLAMPED_MVE(offset)          \
  "vrshl.s32 %q[x], %[shift]\n"         \
  "vadd.i32 %q[x], %q[x], " offset "\n" \
  "vmax.s32 %q[x], %q[x], %q[low]\n"    \
  "vmin.s32 %q[x], %q[x], %q[high]\n"
#define TP_CLAMP_MVE , [low] "w"(low), [high] "w"(high)
#define TP_SATURATED_MVE(offset)        \
  "vrshl.s32 %q[x], %[shift]\n"         \
  "vadd.i32 %q[x], %q[x], " offset "\n" \
  "vqmovnb.s32 %q[x], %q[x]\n"          \
  "vqmovnb.s16 %q[x], %q[x]\n"
#define TP_TIES_MVE(offset)         \
  "vshr.s32 %q[free], %q[x], #31\n" \
  "vadd.i32 %q[x], %q[x], %q[free]\n" TP_SATURATED_MVE(offset)
#define TP_FREE_MVE , [free] "=&w"(free)

/* tp_requantize of four accumulators with a shift of at most 0. */
static inline int32x4_t tp_requantize_mve(int32x4_t acc, int32_t multiplier, int32_t shift) {
  const int32x4_t product = vqrdmulhq_n_s32(acc, multiplier);
  /* negative ones are rounded half up after 1 is taken from them: then ties go away from zero */
  const int32x4_t sign = vshrq_n_s32(vandq_s32(product, vdupq_n_s32(shift)), 31);
  return vrshlq_n_s32(vaddq_s32(product, sign), shift);
}

/* {0, step, 2*step, 3*step}, none beyond last*step. */
static inline uint32x4_t tp_offsets_mve(int32_t step, int32_t last) {
  const uint32x4_t lanes = vidupq_n_u32(0, 1);
  return vmulq_n_u32(vminq_u32(lanes, vdupq_n_u32((uint32_t)last)), (uint32_t)step);
}

#endif
#endif
