/* Integer, block floating point and float32 arithmetic shared by the kernels.
 * Fixed point follows LiteRT's reference kernels; tinypeft/arithmetic.py is the same in NumPy, bit for bit. */
#ifndef TP_ARITHMETIC_H
#define TP_ARITHMETIC_H

#include <string.h>

#include "tp_types.h"

/* Largest bound of an int32 accumulator that leaves room for the half of a rounding shift of up to 25 bits. */
#define TP_ACCUMULATOR_MAX 0x7F000000
/* Where acc * 2^shift would leave int32, it saturates here: zero points can still be added. */
#define TP_REQUANTIZE_MAX 0x7FFFFF00
/* What masters and velocities are kept within; beyond it training has diverged. */
#define TP_MASTER_LIMIT 1048576.0f

static inline int32_t tp_min_s32(int32_t a, int32_t b) { return a < b ? a : b; }
static inline int32_t tp_max_s32(int32_t a, int32_t b) { return a > b ? a : b; }
static inline int32_t tp_abs_s32(int32_t a) { return a < 0 ? -a : a; }
static inline int32_t tp_clamp_s32(int32_t x, int32_t low, int32_t high) { return tp_min_s32(tp_max_s32(x, low), high); }

/* x limited to int8, in fewer instructions than comparing takes; x + 128 is within int32. */
static inline int8_t tp_saturate_s8(int32_t x) {
  const int32_t above = (x + 128) & ~((x + 128) >> 31); /* not below 0 */
  return (int8_t)(((above | ((255 - above) >> 31)) & 255) - 128);
}

/* x, or what is nearest of -limit to limit - 1. */
static inline int32_t tp_within_limit(int64_t x, int32_t limit) {
  return x >= limit ? limit - 1 : (int32_t)(x < -limit ? -limit : x);
}

/* High half of 2*a*b, rounded; saturates only for both INT32_MIN. */
static inline int32_t tp_doubling_high_mul(int32_t a, int32_t b) {
  if (a == INT32_MIN && b == INT32_MIN) {
    return INT32_MAX;
  }
  const int64_t product = (int64_t)a * b;
  const int64_t nudge = product >= 0 ? ((int64_t)1 << 30) : 1 - ((int64_t)1 << 30);
  return (int32_t)((product + nudge) / ((int64_t)1 << 31));
}

/* x / 2^shift rounded half away from zero, 0 <= shift <= 31. */
static inline int32_t tp_rounding_shift_right(int32_t x, int32_t shift) {
  const int32_t mask = (int32_t)(((uint32_t)1 << shift) - 1u);
  const int32_t remainder = x & mask;
  const int32_t threshold = (mask >> 1) + (x < 0 ? 1 : 0);
  return (x >> shift) + (remainder > threshold ? 1 : 0);
}

/* acc, limited so that acc * 2^shift stays inside int32, 0 < shift <= 31. */
static inline int32_t tp_limit_for_shift(int32_t acc, int32_t shift) {
  return tp_clamp_s32(acc, -(TP_REQUANTIZE_MAX >> shift), TP_REQUANTIZE_MAX >> shift);
}

/* The same of b >= 0, which never saturates and rounds alike with one addition: by 64 bits, and by four products of
 * halves for a core that multiplies to 32 bits only. */
static inline int32_t tp_doubling_high_scale_wide(int32_t a, int32_t b) {
  return (int32_t)(((int64_t)a * b + ((int64_t)1 << 30)) >> 31);
}

static inline int32_t tp_doubling_high_scale_narrow(int32_t a, int32_t b) {
  const int32_t a_high = a >> 16, a_low = a & 0xFFFF, b_high = b >> 16, b_low = b & 0xFFFF;
  const int32_t middle = a_high * b_low + (int32_t)((uint32_t)a_low * (uint32_t)b_low >> 16);
  const int32_t other = a_low * b_high;
  const int32_t carry = ((middle & 0x7FFF) + (other & 0x7FFF) + 0x4000) >> 15;
  return a_high * b_high * 2 + (middle >> 15) + (other >> 15) + carry;
}

static inline int32_t tp_doubling_high_scale(int32_t a, int32_t b) {
  return TP_THUMB1 ? tp_doubling_high_scale_narrow(a, b) : tp_doubling_high_scale_wide(a, b);
}

/* x / 2^shift rounded half away from zero, 1 <= shift <= 31; x > INT32_MIN, and below INT32_MAX for a shift of 1. */
static inline int32_t tp_round_away(int32_t x, int32_t shift) { return (((x + (x >> 31)) >> (shift - 1)) + 1) >> 1; }

/* tp_requantize of 0 <= shift: saturates instead of leaving int32. */
int32_t tp_requantize_left(int32_t acc, int32_t multiplier, int32_t shift);

/* acc * multiplier * 2^(shift-31), rounded twice; shift > 0 goes left. multiplier >= 0. -31 <= shift <= 31. */
static inline int32_t tp_requantize(int32_t acc, int32_t multiplier, int32_t shift) {
  if (shift >= 0) {
    return tp_requantize_left(acc, multiplier, shift);
  }
  return tp_round_away(tp_doubling_high_scale(acc, multiplier), -shift);
}

/* How accumulators of output channels become int8. */
typedef struct {
  const int32_t *multiplier;
  const int8_t *shift;
  int32_t output_offset;
  int32_t activation_min, activation_max; /* within int8 */
} tp_requantization;

/* output[j] = clamp(tp_requantize(acc[j] + bias[c], ...) + output_offset) for the channels c = first + j, j < count. */
void tp_requantize_row(const tp_requantization *to, int32_t first, int32_t count, const int32_t *acc,
                       const int32_t *bias, int8_t *output);

/* tp_requantize_single of -1 <= shift. */
int32_t tp_requantize_single_left(int32_t acc, int32_t multiplier, int32_t shift);

/* acc * multiplier * 2^(shift-31), rounded once, half away from zero; -31 <= shift <= 30. */
static inline int32_t tp_requantize_single(int32_t acc, int32_t multiplier, int32_t shift) {
  if (shift >= -1) {
    return tp_requantize_single_left(acc, multiplier, shift);
  }
  const int64_t product = (int64_t)acc * multiplier;
  const int32_t high = (int32_t)((product + (product >> 63)) >> 32); /* all but -shift - 2 bits of the fraction */
  return ((high >> (-2 - shift)) + 1) >> 1;
}

/* floor(x / 2^shift + 1/2); a negative shift goes left. Shifts are limited to [-30, 40]. */
static inline int64_t tp_round_shift_s64(int64_t x, int32_t shift) {
  const int32_t s = tp_clamp_s32(shift, -30, 40);
  if (s > 0) {
    return (x + ((int64_t)1 << (s - 1))) >> s;
  }
  return (int64_t)((uint64_t)x << -s);
}

/* The same within int32: 0 <= shift <= 30, |x| <= INT32_MAX - 2^(shift-1). */
static inline int32_t tp_round_shift_s32(int32_t x, int32_t shift) {
  return shift > 0 ? (x + ((int32_t)1 << (shift - 1))) >> shift : x;
}

/* floor(x / 2^shift + 1/2) of |x| <= 2^62 and 0 <= shift <= 63. */
static inline int64_t tp_round_wide(int64_t x, int32_t shift) {
  return shift > 0 ? (x + ((int64_t)1 << (shift - 1))) >> shift : x;
}

/* x limited to int32. */
static inline int32_t tp_saturate_s32(int64_t x) {
  if (x > INT32_MAX) {
    return INT32_MAX;
  }
  return x < INT32_MIN ? INT32_MIN : (int32_t)x;
}

/* x * multiplier / 2^shift, rounded once, half up, and saturated. multiplier: 0, or 2^30 to 2^31 - 1, so that a shift
 * to the left always saturates. */
static inline int32_t tp_fixed_point(int32_t x, int32_t multiplier, int32_t shift) {
  const int64_t product = (int64_t)x * multiplier;
  return tp_saturate_s32(shift < 0 ? product * 2 : tp_round_wide(product, tp_min_s32(shift, 63)));
}

/* *multiplier * 2^exponent is the positive normal *scale; returns the exponent. Reads its bits: no float operation.
 * The exponent of 0 is small enough for any product to become 0. */
static inline int32_t tp_float_multiplier(const float *scale, int32_t *multiplier) {
  uint32_t bits;
  memcpy(&bits, scale, sizeof bits);
  *multiplier = (int32_t)(((bits & 0x7FFFFFu) | 0x800000u) << 7);
  return (int32_t)((bits >> 23) & 0xFFu) - 157;
}

/* e^a of a Q5.26 in (-32, 0], as Q0.31. */
int32_t tp_exp_on_negative_values(int32_t a);

/* e^(x * 2^exponent) as Q0.31, of -2^32 < x <= 0 and -24 <= exponent <= 0; 0 from e^-32 on. */
int32_t tp_exponential(int64_t x, int32_t exponent);

/* ln(x / 2^31) in units of 2^-26, of 2^31 <= x < 2^62; error below 3e-8. */
int32_t tp_log_fixed(uint64_t x);

/* The smallest shift >= 0 that brings `bound` to `limit`, 127 or 32767, after rounding. */
static inline int32_t tp_narrow_shift(int64_t bound, int32_t limit) {
  int32_t shift = 0;
  while (bound >> shift >= 1 << 24) {
    shift += 8; /* and more */
  }
  while (tp_round_shift_s64(bound, shift) > limit) {
    shift++;
  }
  return shift;
}

/* The smallest shift >= 0 of mantissas up to `peak` that keeps their product with an L1 norm inside int32. */
static inline int32_t tp_accumulator_shift(int32_t peak, int32_t l1) {
  int32_t shift = 0;
  while (tp_round_shift_s64(peak, shift) * l1 > TP_ACCUMULATOR_MAX) {
    shift++;
  }
  return shift;
}

/* The exponent at which |a + b|, of magnitudes up to the bounds, is at most `limit` after rounding each. */
int32_t tp_common_exponent(int64_t bound_a, int32_t exponent_a, int64_t bound_b, int32_t exponent_b, int32_t limit);

/* 2^exponent; below the normal range 0, above it the largest power. */
static inline float tp_exp2i(int32_t exponent) {
  if (exponent < -126) {
    return 0.0f;
  }
  const uint32_t bits = (uint32_t)(tp_min_s32(exponent, 127) + 127) << 23;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

/* The bits of |x|, which are in the order of numbers; not a number is above all. */
static inline uint32_t tp_magnitude_bits(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits & 0x7FFFFFFFu;
}

/* x limited to [-limit, limit]; not a number becomes 0. One comparison of integers tells whether x stays. */
static inline float tp_limit_f32(float x, float limit) {
  if (tp_magnitude_bits(x) <= tp_magnitude_bits(limit)) {
    return x;
  }
  if (x != x) {
    return 0.0f;
  }
  return x > 0.0f ? limit : -limit;
}

/* A master as it is quantised: finite. */
static inline float tp_limit_master(float x) { return tp_limit_f32(x, TP_MASTER_LIMIT); }

/* The largest |x[i]| of masters. */
static inline float tp_peak_of_masters(const float *x, int32_t count) {
  uint32_t bits = 0;
  float peak;
  for (int32_t i = 0; i < count; i++) {
    const uint32_t magnitude = tp_magnitude_bits(tp_limit_master(x[i]));
    bits = magnitude > bits ? magnitude : bits;
  }
  memcpy(&peak, &bits, sizeof peak);
  return peak;
}

/* floor(x + 0.5): one float addition, then floor. Saturates at +-2^30; not a number gives 0. */
static inline int32_t tp_round_to_s32(float x) {
  const float shifted = tp_limit_f32(x, 1073741824.0f) + 0.5f;
  const int32_t truncated = (int32_t)shifted;
  return (float)truncated > shifted ? truncated - 1 : truncated;
}

/* e with 2^e <= x < 2^(e+1), for a positive normal x; -127 below, 128 for infinity. */
static inline int32_t tp_float_exponent(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return (int32_t)((bits >> 23) & 0xFFu) - 127;
}

/* The Q31 multiplier and shift of a positive normal float32, exactly; the shift limited to what requantising takes. */
static inline int8_t tp_requantize_multiplier(float real, int32_t *multiplier) {
  uint32_t bits;
  memcpy(&bits, &real, sizeof bits);
  *multiplier = (int32_t)(((bits & 0x7FFFFFu) | 0x800000u) << 7);
  return (int8_t)tp_clamp_s32(tp_float_exponent(real) + 1, -31, 30);
}


/* The square root, correctly rounded; 0 for what is not above 0. */
float tp_sqrt_f32(float x);

/* cos(pi * x) for 0 <= x <= 1, within 3e-7. */
float tp_cos_pi_f32(float x);

/* The state behind `state`, neither of which is 0. */
static inline uint32_t tp_xorshift32(uint32_t state) {
  state ^= state << 13;
  state ^= state >> 17;
  return state ^ state << 5;
}

/* `count` values in [-bound, bound) from xorshift32; returns the next state. `state` is not 0. */
uint32_t tp_uniform_f32(uint32_t state, float *values, int32_t count, float bound);

#endif
