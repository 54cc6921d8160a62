#include "tinypeft/tp_mve.h"

#if defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 1)

/* An operand in steps of 2^-20 of twice the larger scale. The one of the larger scale is halved exactly; the other has
 * a negative shift, so that it is rounded twice, ties away from zero. */
#define HALF(x, input, offset)                     \
  "vldrb.s32 %q[" x "], [%[" input "]], #4\n"      \
  "vadd.i32 %q[" x "], %q[" x "], %[" offset "]\n" \
  "vshl.i32 %q[" x "], %q[" x "], #19\n"
#define SCALED(x, input, offset)                       \
  "vldrb.s32 %q[" x "], [%[" input "]], #4\n"          \
  "vadd.i32 %q[" x "], %q[" x "], %[" offset "]\n"     \
  "vshl.i32 %q[" x "], %q[" x "], #20\n"               \
  "vqrdmulh.s32 %q[" x "], %q[" x "], %[multiplier]\n" \
  "vshr.s32 %q[t], %q[" x "], #31\n"                   \
  "vadd.i32 %q[" x "], %q[" x "], %q[t]\n"             \
  "vrshl.s32 %q[" x "], %[shift]\n"

/* The sum's rounding: where a negative tie is not below the clamp, away from zero. */
#define TIES                             \
  "vshr.s32 %q[t], %q[x1], #31\n"        \
  "vadd.i32 %q[x1], %q[x1], %q[t]\n"
#define NO_TIES

/* The whole loop; a tail of less than four elements is predicated. Loads that widen take low registers only. */
#define LOOP(TERM1, TERM2, sum, ROUND)                                                                     \
  __asm__ volatile("dlstp.32 lr, %[size]\n"                                                                \
                   "1:\n" TERM1("x1", "input1", "offset1") TERM2("x2", "input2", "offset2") sum            \
                   ".i32 %q[x1], %q[x1], %q[x2]\n"                                                         \
                   "vqrdmulh.s32 %q[x1], %q[x1], %[output_multiplier]\n" ROUND                             \
                   "vrshl.s32 %q[x1], %[output_shift]\n"                                                   \
                   "vadd.i32 %q[x1], %q[x1], %[output_offset]\n"                                           \
                   "vmax.s32 %q[x1], %q[x1], %q[low]\n"                                                    \
                   "vmin.s32 %q[x1], %q[x1], %q[high]\n"                                                   \
                   "vstrb.32 %q[x1], [%[output]], #4\n"                                                    \
                   "letp lr, 1b\n"                                                                         \
                   : [input1] "+&l"(input1), [input2] "+&l"(input2), [output] "+&l"(output),               \
                     [x1] "=&w"(x1), [x2] "=&w"(x2), [t] "=&w"(t)                                          \
                   : [size] "r"(params->size), [offset1] "r"(params->input1_offset),                       \
                     [offset2] "r"(params->input2_offset), [multiplier] "r"(params->multiplier),           \
                     [shift] "r"(params->shift), [output_multiplier] "r"(params->output_multiplier),       \
                     [output_shift] "r"(params->output_shift), [output_offset] "r"(params->output_offset), \
                     [low] "w"(low), [high] "w"(high)                                                      \
                   : "lr", "memory")

/* `sum`: vadd or vsub. */
#define SUM(name, sum, ROUND)                                                                                       \
  static TP_NOINLINE void name(const tp_add_mve_params *params, const int8_t *input1, const int8_t *input2,         \
                               int8_t *output) {                                                                    \
    int32x4_t x1, x2, t;                                                                                            \
    const int32x4_t low = vdupq_n_s32(params->activation_min);                                                      \
    const int32x4_t high = vdupq_n_s32(params->activation_max);                                                     \
    if (params->scaled == 1) {                                                                                      \
      LOOP(SCALED, HALF, sum, ROUND);                                                                               \
    } else if (params->scaled == 2) {                                                                               \
      LOOP(HALF, SCALED, sum, ROUND);                                                                               \
    } else {                                                                                                        \
      LOOP(HALF, HALF, sum, ROUND);                                                                                 \
    }                                                                                                               \
  }

SUM(add, "vadd", NO_TIES)
SUM(add_ties, "vadd", TIES)
SUM(subtract, "vsub", NO_TIES)
SUM(subtract_ties, "vsub", TIES)

void tp_add_mve_s8(const tp_add_mve_params *params, const int8_t *input1, const int8_t *input2, int8_t *output) {
  (params->ties != 0 ? add_ties : add)(params, input1, input2, output);
}

void tp_sub_mve_s8(const tp_add_mve_params *params, const int8_t *input1, const int8_t *input2, int8_t *output) {
  (params->ties != 0 ? subtract_ties : subtract)(params, input1, input2, output);
}

#endif
