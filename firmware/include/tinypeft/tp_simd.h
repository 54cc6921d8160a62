/* Instructions of the DSP extension that C has no operators for, under Arm's names and with Arm's order of operands.
 * Where one takes the flags of another, all of them are one function. */
#ifndef TP_SIMD_H
#define TP_SIMD_H

#include "tp_types.h"

/* Four bytes as they lie, at any address: one LDR, where a call of memcpy could be otherwise. */
static inline uint32_t tp_load_word(const void *from) {
  uint32_t word;
  __builtin_memcpy(&word, from, sizeof word);
  return word;
}

/* Of `size` bytes four from i on, zeros behind the last. */
static inline uint32_t tp_load_word_of(const int8_t *bytes, int32_t i, int32_t size) {
  if (i + 4 <= size) {
    return tp_load_word(bytes + i);
  }
  uint32_t word = 0;
  for (int32_t n = 0; i + n < size; n++) {
    word |= (uint32_t)(uint8_t)bytes[i + n] << (8 * n);
  }
  return word;
}

static inline void tp_store_word(void *to, uint32_t word) { __builtin_memcpy(to, &word, sizeof word); }

/* tp_<name> of one, two or three words, where the last of three is what the result is added to. */
#define TP_OF_ONE(name, text)                    \
  static inline uint32_t tp_##name(uint32_t x) { \
    uint32_t result;                             \
    __asm__(text : "=r"(result) : "r"(x));       \
    return result;                               \
  }
#define TP_OF_TWO(type, name, text)                      \
  static inline type tp_##name(uint32_t x, uint32_t y) { \
    type result;                                         \
    __asm__(text : "=r"(result) : "r"(x), "r"(y));       \
    return result;                                       \
  }
#define TP_OF_THREE(type, name)                                                 \
  static inline int32_t tp_##name(type x, uint32_t y, int32_t acc) {            \
    int32_t result;                                                             \
    __asm__(#name " %0, %1, %2, %3" : "=r"(result) : "r"(x), "r"(y), "r"(acc)); \
    return result;                                                              \
  }

/* Bytes 0 and 2 as two int16; bytes 1 and 3. */
TP_OF_ONE(sxtb16, "sxtb16 %0, %1")
TP_OF_ONE(sxtb16_ror8, "sxtb16 %0, %1, ror #8")

/* The halves of x plus those bytes of y. */
TP_OF_TWO(uint32_t, sxtab16, "sxtab16 %0, %1, %2")
TP_OF_TWO(uint32_t, sxtab16_ror8, "sxtab16 %0, %1, %2, ror #8")

/* Below the low half of x, above the low half of y. */
TP_OF_TWO(uint32_t, pkhbt, "pkhbt %0, %1, %2, lsl #16")
/* Above the high half of x, below the high half of y; below y >> 15, y >> 8. */
TP_OF_TWO(uint32_t, pkhtb, "pkhtb %0, %1, %2, asr #16")
TP_OF_TWO(uint32_t, pkhtb_asr15, "pkhtb %0, %1, %2, asr #15")
TP_OF_TWO(uint32_t, pkhtb_asr8, "pkhtb %0, %1, %2, asr #8")

/* The differences of the four bytes. */
TP_OF_TWO(uint32_t, usub8, "usub8 %0, %1, %2")

/* The sums of the low halves and of the high ones. */
TP_OF_TWO(uint32_t, sadd16, "sadd16 %0, %1, %2")

/* The product of the low halves; of the high ones. */
TP_OF_TWO(int32_t, smulbb, "smulbb %0, %1, %2")
TP_OF_TWO(int32_t, smultt, "smultt %0, %1, %2")

/* The sum of both. */
TP_OF_TWO(int32_t, smuad, "smuad %0, %1, %2")

/* acc plus the product of the low halves; of the high ones; plus both. */
TP_OF_THREE(uint32_t, smlabb)
TP_OF_THREE(uint32_t, smlatt)
TP_OF_THREE(uint32_t, smlad)

/* acc + (x * low half of y >> 16); with the high half. */
TP_OF_THREE(int32_t, smlawb)
TP_OF_THREE(int32_t, smlawt)

#undef TP_OF_ONE
#undef TP_OF_TWO
#undef TP_OF_THREE

/* x limited to int8. */
static inline int32_t tp_ssat8(int32_t x) {
  int32_t result;
  __asm__("ssat %0, #8, %1" : "=r"(result) : "r"(x));
  return result;
}

/* Of each lane of x and y one, by the sign of their difference: the larger ones, the smaller ones. */
#define TP_SELECT(name, subtract, not_less, less)                 \
  static inline uint32_t tp_##name(uint32_t x, uint32_t y) {      \
    uint32_t result;                                              \
    __asm__(subtract " %0, %1, %2\n\tsel %0, " not_less ", " less \
            : "=&r"(result) : "r"(x), "r"(y));                    \
    return result;                                                \
  }
TP_SELECT(max_s8x4, "ssub8", "%1", "%2")
TP_SELECT(min_s8x4, "ssub8", "%2", "%1")
TP_SELECT(max_s16x2, "ssub16", "%1", "%2")
TP_SELECT(min_s16x2, "ssub16", "%2", "%1")
#undef TP_SELECT

/* The lanes of `values` where those of x, unsigned, are below those of `limit`; 0 in the others. */
#define TP_WHERE_BELOW(name, subtract)                                            \
  static inline uint32_t tp_##name(uint32_t values, uint32_t x, uint32_t limit) { \
    uint32_t result;                                                              \
    __asm__(subtract " %0, %2, %3\n\tsel %0, %4, %1"                              \
            : "=&r"(result) : "r"(values), "r"(x), "r"(limit), "r"(0));           \
    return result;                                                                \
  }
TP_WHERE_BELOW(where_below_u8x4, "usub8")
TP_WHERE_BELOW(where_below_u16x2, "usub16")
#undef TP_WHERE_BELOW

/* acc plus the four bytes. */
static inline uint32_t tp_add_bytes(uint32_t bytes, uint32_t acc) {
  uint32_t result;
  __asm__("usada8 %0, %1, %2, %3" : "=r"(result) : "r"(bytes), "r"(0), "r"(acc));
  return result;
}

/* doubled / 2 * multiplier * 2^-(31 + shift), rounded twice, 1 <= shift <= 31: tp_requantize of a doubled accumulator.
 * The carry of the shift rounds; what is negative becomes one less, so that its ties round away from zero. */
static inline int32_t tp_requantize_doubled(int32_t doubled, int32_t multiplier, int32_t shift, int32_t offset) {
  int32_t result;
  __asm__(
      "smmulr %0, %1, %2\n\t"
      "add %0, %0, %0, asr #31\n\t"
      "asrs %0, %0, %3\n\t"
      "adc %0, %0, %4"
      : "=&r"(result)
      : "r"(doubled), "r"(multiplier), "r"(shift), "r"(offset)
      : "cc");
  return result;
}

#endif
