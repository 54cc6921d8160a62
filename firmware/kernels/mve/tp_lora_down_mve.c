#include "tinypeft/tp_mve.h"

#if defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 1)

/* Sums over `count` values, of which a tail is predicated, of x times each of four rows, added to what `acc` holds. */
static inline int32x4_t four_rows(const int8_t *x, const int8_t *const rows[4], int32_t count, int32x4_t acc) {
  int32_t a0 = 0, a1 = 0, a2 = 0, a3 = 0;
  const int8_t *r0 = rows[0], *r1 = rows[1], *r2 = rows[2], *r3 = rows[3];
  int8x16_t value, row;
  int32x4_t sums;
  __asm__ volatile(
      "dlstp.8 lr, %[count]\n"
      "1:\n"
      "vldrb.8 %q[value], [%[x]], #16\n"
      "vldrb.8 %q[row], [%[r0]], #16\n"
      "vmladava.s8 %[a0], %q[value], %q[row]\n"
      "vldrb.8 %q[row], [%[r1]], #16\n"
      "vmladava.s8 %[a1], %q[value], %q[row]\n"
      "vldrb.8 %q[row], [%[r2]], #16\n"
      "vmladava.s8 %[a2], %q[value], %q[row]\n"
      "vldrb.8 %q[row], [%[r3]], #16\n"
      "vmladava.s8 %[a3], %q[value], %q[row]\n"
      "letp lr, 1b\n"
      "vmov %q[sums][2], %q[sums][0], %[a0], %[a2]\n"
      "vmov %q[sums][3], %q[sums][1], %[a1], %[a3]\n"
      : [a0] "+&Te"(a0), [a1] "+&Te"(a1), [a2] "+&Te"(a2), [a3] "+&Te"(a3), [value] "=&w"(value), [row] "=&w"(row),
        [sums] "=&w"(sums), [x] "+&r"(x), [r0] "+&r"(r0), [r1] "+&r"(r1), [r2] "+&r"(r2), [r3] "+&r"(r3)
      : [count] "r"(count)
      : "lr", "memory");
  return vaddq_s32(acc, sums);
}

/* The sum of `count` values. */
static int32_t sum_of(const int8_t *x, int32_t count) {
  int32_t sum = 0;
  int8x16_t value;
  __asm__ volatile(
      "dlstp.8 lr, %[count]\n"
      "1: vldrb.8 %q[value], [%[x]], #16\n"
      "vaddva.s8 %[sum], %q[value]\n"
      "letp lr, 1b\n"
      : [sum] "+&Te"(sum), [value] "=&w"(value), [x] "+&r"(x)
      : [count] "r"(count)
      : "lr", "memory");
  return sum;
}

void tp_lora_down_mve_s8(const tp_conv_mve_params *params, const int8_t *input, const int8_t *lora_A,
                         const int8_t *hidden_shift, int16_t *hidden, void *scratch) {
  const tp_window *w = &params->window;
  const int32_t rank = w->output_c;
  const int32_t count = w->kernel_h * w->kernel_w * w->input_c;
  const int32_t positions = w->output_h * w->output_w;
  int32_t *start = (int32_t *)(void *)((int8_t *)scratch + params->row_bytes + 16);
  for (int32_t r = 0; r < rank; r++) { /* what the zero point adds */
    start[r] = -params->padding * sum_of(lora_A + r * count, count);
  }
  for (int32_t p = 0; p < positions; p++) {
    tp_gather_rows_mve_s8(params, input, p, 1, scratch);
    for (int32_t r = 0; r < rank; r += 4) {
      const int8_t *rows[4];
      for (int32_t i = 0; i < 4; i++) {
        rows[i] = lora_A + tp_min_s32(r + i, rank - 1) * count;
      }
      const int32x4_t acc = four_rows(scratch, rows, count, vldrwq_s32(start + r));
      const mve_pred16_t some = vctp32q((uint32_t)(rank - r));
      vstrhq_p_s32(hidden + r, vrshlq_n_s32(acc, -hidden_shift[0]), some);
    }
    hidden += rank;
  }
}

#endif
