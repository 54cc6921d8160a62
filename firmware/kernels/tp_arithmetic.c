#include "tinypeft/tp_arithmetic.h"

#include "tinypeft/tp_accumulate.h"

TP_COLD int32_t tp_requantize_left(int32_t acc, int32_t multiplier, int32_t shift) {
  const int32_t limited = shift > 0 ? tp_limit_for_shift(acc, shift) : acc;
  return tp_doubling_high_scale((int32_t)((uint32_t)limited << shift), multiplier);
}

TP_COLD int32_t tp_requantize_single_left(int32_t acc, int32_t multiplier, int32_t shift) {
  const int32_t total = 31 - shift;
  const int32_t limited = shift > 0 ? tp_limit_for_shift(acc, shift) : acc;
  const int64_t product = (int64_t)limited * multiplier;
  return (int32_t)((product + ((int64_t)1 << (total - 1)) - (product < 0 ? 1 : 0)) >> total);
}

void tp_requantize_row(const tp_requantization *to, int32_t first, int32_t count, const int32_t *acc,
                       const int32_t *bias, int8_t *output) {
  const int32_t output_offset = to->output_offset;
  const int32_t *multiplier = to->multiplier + first;
  const int8_t *shift = to->shift + first;
  int8_t *y = output;
  bias += first;
  for (const int32_t *end = acc + count; acc != end;) {
    *y++ = tp_saturate_s8(tp_requantize(*acc++ + *bias++, *multiplier++, *shift++) + output_offset);
  }
  if (to->activation_min > INT8_MIN || to->activation_max < INT8_MAX) {
    for (; output != y; output++) {
      *output = (int8_t)tp_clamp_s32(*output, to->activation_min, to->activation_max);
    }
  }
}

/* A step of four inner products with a common column. */
#define STEP(x)               \
  do {                        \
    const int32_t value = x;  \
    a0 += value * *f0++;      \
    a1 += value * *f1++;      \
    a2 += value * *f2++;      \
    a3 += value * *f3++;      \
  } while (0)

void tp_dot_rows_s8(const int16_t *column, const int8_t *filter, int32_t count, int32_t filter_stride, int32_t filters,
                    int32_t acc[TP_BLOCK]) {
  if (filters == TP_BLOCK) {
    const int8_t *f0 = filter, *f1 = f0 + filter_stride, *f2 = f1 + filter_stride, *f3 = f2 + filter_stride;
    int32_t a0 = 0, a1 = 0, a2 = 0, a3 = 0;
    for (int32_t i = 0; i < count; i++) {
      STEP(column[i]);
    }
    acc[0] = a0;
    acc[1] = a1;
    acc[2] = a2;
    acc[3] = a3;
    return;
  }
  for (int32_t j = 0; j < filters; j++) {
    const int8_t *f = filter + j * filter_stride;
    int32_t a = 0;
    for (int32_t i = 0; i < count; i++) {
      a += column[i] * f[i];
    }
    acc[j] = a;
  }
}

void tp_dot_input_s8(const int8_t *input, const int8_t *filter, int32_t count, int32_t filter_stride, int32_t filters,
                     int32_t acc[TP_BLOCK]) {
  int32_t j = 0;
#if TP_THUMB1
  for (; j + 2 <= filters; j += 2) {
    const int8_t *f0 = filter + j * filter_stride, *f1 = f0 + filter_stride;
    int32_t a0 = 0, a1 = 0;
    for (int32_t i = 0; i < count; i++) {
      const int32_t value = input[i];
      a0 += value * f0[i];
      a1 += value * f1[i];
    }
    acc[j] = a0;
    acc[j + 1] = a1;
  }
#else
  if (filters == TP_BLOCK) {
    const int8_t *f0 = filter, *f1 = f0 + filter_stride, *f2 = f1 + filter_stride, *f3 = f2 + filter_stride;
    int32_t a0 = 0, a1 = 0, a2 = 0, a3 = 0;
    const int8_t *x = input, *end = input + (count & ~7);
    while (x != end) {
      STEP(*x++);
      STEP(*x++);
      STEP(*x++);
      STEP(*x++);
      STEP(*x++);
      STEP(*x++);
      STEP(*x++);
      STEP(*x++);
    }
    for (end += count & 7; x != end;) {
      STEP(*x++);
    }
    acc[0] = a0;
    acc[1] = a1;
    acc[2] = a2;
    acc[3] = a3;
    return;
  }
#endif
  for (; j < filters; j++) {
    const int8_t *f = filter + j * filter_stride;
    int32_t a = 0;
    for (int32_t i = 0; i < count; i++) {
      a += input[i] * f[i];
    }
    acc[j] = a;
  }
}

#undef STEP

/* e^a of a Q0.31 in [-1/4, 0): a Taylor series around -1/8. */
static int32_t exp_last_quarter(int32_t a) {
  const int32_t exp_minus_eighth = 1895147668, third = 715827883;
  const int32_t x = a + ((int32_t)1 << 28);
  const int32_t x2 = tp_doubling_high_mul(x, x);
  const int32_t x3 = tp_doubling_high_mul(x2, x);
  const int32_t x4 = tp_doubling_high_mul(x2, x2);
  const int32_t cubic = tp_doubling_high_mul(tp_rounding_shift_right(x4, 2) + x3, third);
  const int32_t series = tp_rounding_shift_right(cubic + x2, 1);
  return exp_minus_eighth + tp_doubling_high_mul(exp_minus_eighth, x + series);
}

int32_t tp_exp_on_negative_values(int32_t a) {
  /* e^-(1/4), e^-(1/2), e^-1 ... e^-16 as Q0.31 */
  static const int32_t powers[] = {1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242};
  const int32_t quarter = (int32_t)1 << 24;
  if (a == 0) {
    return INT32_MAX;
  }
  const int32_t last = (a & (quarter - 1)) - quarter;
  const int32_t remainder = last - a;
  int32_t result = exp_last_quarter(last * (1 << 5));
  for (int32_t i = 0; i < 7; i++) {
    if ((remainder & (quarter << i)) != 0) {
      result = tp_doubling_high_mul(result, powers[i]);
    }
  }
  return result;
}

int32_t tp_exponential(int64_t x, int32_t exponent) {
  const int64_t scaled = x * ((int64_t)1 << (26 + exponent));
  return scaled > INT32_MIN ? tp_exp_on_negative_values((int32_t)scaled) : 0;
}

int32_t tp_log_fixed(uint64_t x) {
  static const int32_t coefficients[] = {238609294, 306783378, 429496730, 715827883}; /* 1/9, 1/7, 1/5, 1/3 */
  const int64_t ln2 = 1488522236, sqrt2 = 3037000500;
  int32_t power = 0;
  while (x >> power >= (uint64_t)1 << 32) {
    power++;
  }
  const int64_t m = (int64_t)(x >> power);
  int64_t one = (int64_t)1 << 31;
  if (m > sqrt2) {
    power++;
    one *= 2;
  }
  const int64_t difference = m > one ? m - one : one - m;
  const int32_t quotient = (int32_t)(difference * ((int64_t)1 << 31) / (m + one));
  const int32_t f = m >= one ? quotient : -quotient;
  const int32_t square = tp_doubling_high_mul(f, f);
  int32_t p = 0;
  for (size_t i = 0; i < sizeof coefficients / sizeof coefficients[0]; i++) {
    p = tp_doubling_high_mul(square, p + coefficients[i]);
  }
  const int64_t series = (int64_t)f + tp_doubling_high_mul(f, p);
  return (int32_t)tp_round_shift_s64(2 * series + power * ln2, 5);
}

int32_t tp_common_exponent(int64_t bound_a, int32_t exponent_a, int64_t bound_b, int32_t exponent_b, int32_t limit) {
  const int32_t ea = bound_a == 0 ? exponent_b : exponent_a;
  const int32_t eb = bound_b == 0 ? ea : exponent_b;
  const int32_t low = tp_min_s32(ea, eb);
  const int32_t high = tp_max_s32(ea, eb);
  int32_t exponent = tp_max_s32(low, high - 30);
  while (tp_round_shift_s64(bound_a, exponent - ea) + tp_round_shift_s64(bound_b, exponent - eb) > limit) {
    exponent++;
  }
  return exponent;
}


#if defined(__ARM_FP) && (__ARM_FP & 4)
float tp_sqrt_f32(float x) {
  float root = 0.0f;
  if (x > 0.0f) {
    __asm__("vsqrt.f32 %0, %1" : "=t"(root) : "t"(x));
  }
  return root;
}
#else
float tp_sqrt_f32(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  if (!(x > 0.0f) || bits == 0x7F800000u) {
    return x > 0.0f ? x : 0.0f;
  }
  int32_t exponent = (int32_t)(bits >> 23) - 150;
  uint32_t mantissa = bits & 0x7FFFFFu;
  if (exponent == -150) { /* subnormal */
    exponent = -149;
    while (mantissa < 0x800000u) {
      mantissa <<= 1;
      exponent--;
    }
  }
  mantissa = (mantissa | 0x800000u) << 1;
  exponent--;
  if (exponent % 2 != 0) {
    mantissa <<= 1;
    exponent--;
  }
  /* x = mantissa * 2^exponent with 2^24 <= mantissa < 2^26: 25 digits of its root, the last of which rounds. None of
   * 25 digits is exact with a last digit of 1, since its square would be odd. */
  uint32_t root = 0;
  uint32_t remainder = 0;
  for (int32_t digit = 0; digit < 25; digit++) {
    remainder = (remainder << 2) | ((mantissa >> 24) & 3u);
    mantissa <<= 2;
    const uint32_t trial = (root << 2) | 1u;
    root <<= 1;
    if (remainder >= trial) {
      remainder -= trial;
      root |= 1u;
    }
  }
  return (float)(int32_t)((root + 1u) >> 1) * tp_exp2i(exponent / 2 - 11);
}
#endif

float tp_cos_pi_f32(float x) {
  static const float coefficients[] = {8.2145887e-2f, -5.9926453e-1f, 2.5501640f, -5.1677128f, 3.1415927f};
  const float r = 0.5f - x;
  const float square = r * r;
  float p = -7.3704309e-3f;
  for (size_t i = 0; i < sizeof coefficients / sizeof coefficients[0]; i++) {
    const float product = p * square;
    p = product + coefficients[i];
  }
  return tp_limit_f32(p * r, 1.0f);
}

uint32_t tp_uniform_f32(uint32_t state, float *values, int32_t count, float bound) {
  for (int32_t i = 0; i < count; i++) {
    state = tp_xorshift32(state);
    const float unit = (float)((int32_t)(state >> 8) - (1 << 23)) * tp_exp2i(-23);
    values[i] = unit * bound;
  }
  return state;
}
