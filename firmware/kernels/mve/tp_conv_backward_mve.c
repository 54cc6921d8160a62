#include "tinypeft/tp_accumulate.h"
#include "tinypeft/tp_mve.h"
#include "tinypeft/tp_narrowing.h"

#if defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 1) && TP_GRADIENT_BITS == 16

/* `count` mantissas, rounded to `narrow` bits fewer; a tail is predicated. */
static inline void copy_mantissas(const int16_t *from, int32_t count, int32_t narrow, int16_t *to) {
  int16x8_t chunk;
  __asm__ volatile(
      "wlstp.16 lr, %[count], 2f\n"
      "1: vldrh.16 %q[chunk], [%[from]], #16\n"
      "vrshl.s16 %q[chunk], %[shift]\n"
      "vstrh.16 %q[chunk], [%[to]], #16\n"
      "letp lr, 1b\n"
      "2:\n"
      : [to] "+&r"(to), [from] "+&r"(from), [chunk] "=&w"(chunk)
      : [count] "r"(count), [shift] "r"(-narrow)
      : "lr", "memory");
}

/* The mantissas of every output that (y,x) contributes to, tap by tap, zeros where there is none. */
static void gather_column(const tp_window *w, const int16_t *g, int32_t y, int32_t x, int32_t narrow, int16_t *column) {
  for (int32_t i = 0; i < w->kernel_h; i++) {
    const int32_t oy = tp_covering_output(y, i, w->stride_h, w->pad_top, w->dilation_h, w->output_h);
    for (int32_t j = 0; j < w->kernel_w; j++) {
      const int32_t ox = tp_covering_output(x, j, w->stride_w, w->pad_left, w->dilation_w, w->output_w);
      if (oy < 0 || ox < 0) {
        tp_fill_mve_s8((int8_t *)column, 0, 2 * w->output_c);
      } else {
        copy_mantissas(g + (oy * w->output_w + ox) * w->output_c, w->output_c, narrow, column);
      }
      column += w->output_c;
    }
  }
}

/* How accumulators become mantissas. */
typedef struct {
  int32_t shift;        /* of accumulators, to the left */
  int32_t addend_shift; /* of the addend's mantissas, to the left */
  int32_t exponent;     /* of the result */
  uint32x4_t peak;
} narrowing;

#define DOT(a)                         \
  "vldrb.s16 %q[f], [%[filter]], #8\n" \
  "vmladava.s16 %[" a "], %q[x], %q[f]\n"
#define FIRST_DOT(a)                   \
  "vldrb.s16 %q[f], [%[filter]], #8\n" \
  "vmladav.s16 %[" a "], %q[x], %q[f]\n"
#define NO_ADDEND
#define ADDEND                         \
  "vldrh.s32 %q[f], [%[addend]], #8\n" \
  "vrshl.s32 %q[f], %q[f], %q[by]\n"   \
  "vadd.i32 %q[acc], %q[acc], %q[f]\n"

#define ADDEND_OPERAND , [addend] "+&l"(addend)

/* `groups` times four input channels. Loads that widen and stores that narrow take low registers only. */
#define FOUR_CHANNELS(ADD, outputs)                                                                    \
  __asm__ volatile("1: mov %[from], %[column]\n"                                                       \
                   "vldrh.16 %q[x], [%[from]], #16\n"                                                  \
                   FIRST_DOT("a0") FIRST_DOT("a1") FIRST_DOT("a2") FIRST_DOT("a3")                     \
                   "wls lr, %[more], 3f\n"                                                             \
                   "2: vldrh.16 %q[x], [%[from]], #16\n"                                               \
                   DOT("a0") DOT("a1") DOT("a2") DOT("a3")                                             \
                   "le lr, 2b\n"                                                                       \
                   "3: vmov %q[acc][2], %q[acc][0], %[a0], %[a2]\n"                                    \
                   "vmov %q[acc][3], %q[acc][1], %[a1], %[a3]\n"                                       \
                   "vrshl.s32 %q[acc], %[shift]\n" ADD                                                 \
                   "vmaxa.s32 %q[peak], %q[acc]\n"                                                     \
                   "vstrh.32 %q[acc], [%[result]], #8\n"                                               \
                   "subs %[groups], %[groups], #1\n"                                                   \
                   "bne 1b\n"                                                                          \
                   : [a0] "=&Te"(a0), [a1] "=&Te"(a1), [a2] "=&Te"(a2), [a3] "=&Te"(a3), [x] "=&w"(x), \
                     [f] "=&w"(f), [acc] "=&w"(acc), [from] "=&r"(from), [filter] "+&l"(filter),       \
                     [result] "+&l"(result), [groups] "+&r"(groups), [peak] "+&w"(to->peak) outputs    \
                   : [column] "r"(column), [more] "r"(more), [shift] "r"(to->shift), [by] "w"(by)      \
                   : "lr", "cc", "memory")

/* A position's mantissas for whole groups of four input channels; `addend` may be NULL. */
static TP_NOINLINE void all_channels(narrowing *to, const int16_t *column, int32_t more, const int8_t *filter,
                                     int32_t groups, const int16_t *addend, int16_t *result) {
  int32_t a0, a1, a2, a3;
  const int16_t *from;
  int16x8_t x, f;
  int32x4_t acc;
  const int32x4_t by = vdupq_n_s32(to->addend_shift);
  if (addend == NULL) {
    FOUR_CHANNELS(NO_ADDEND, );
  } else {
    FOUR_CHANNELS(ADDEND, ADDEND_OPERAND);
  }
}

/* Up to four mantissas from accumulators; `addend` may be NULL. */
static inline void put(narrowing *to, int32x4_t acc, const int16_t *addend, mve_pred16_t some, int16_t *result) {
  int32x4_t value = vrshlq_n_s32(acc, to->shift);
  if (addend != NULL) {
    value = vaddq_s32(value, vrshlq_n_s32(vldrhq_z_s32(addend, some), to->addend_shift));
  }
  to->peak = vmaxaq_s32(to->peak, value);
  vstrhq_p_s32(result, value, some);
}

/* The same for the one to three channels behind whole groups, from c on. */
static void last_channels(narrowing *to, const int16_t *column, int32_t chunks, const int8_t *filter, int32_t c,
                          int32_t channels, const int16_t *addend, int16_t *result) {
  int32_t sum[4] = {0};
  for (int32_t i = 0; i < chunks; i++) {
    const int16x8_t x = vldrhq_s16(column + 8 * i);
    for (int32_t j = 0; j < channels - c; j++) {
      sum[j] = vmladavaq_s16(sum[j], x, vldrbq_s16(filter + 32 * i + 8 * j));
    }
  }
  put(to, vldrwq_s32(sum), addend != NULL ? addend + c : NULL, vctp32q((uint32_t)(channels - c)), result + c);
}

/* How sums of mantissas, rounded to `narrow` bits fewer, become mantissas, and those of `addend` beside them. */
static narrowing narrow_by(const tp_bfp *d_acc, int32_t narrow, int32_t l1, const tp_bfp *addend) {
  const int64_t bound = tp_round_shift_s64(d_acc->peak, narrow) * l1;
  const int32_t exponent = d_acc->exponent + narrow;
  narrowing to = {-tp_narrow_shift(bound, TP_BFP_MAX), 0, exponent, vdupq_n_u32(0)};
  if (addend != NULL) {
    to.exponent = tp_common_exponent(bound, exponent, addend->peak, addend->exponent, TP_BFP_MAX);
    to.shift = tp_max_s32(exponent - to.exponent, -40);
    to.addend_shift = tp_max_s32(addend->exponent - to.exponent, -40);
  } else {
    to.exponent -= to.shift;
  }
  return to;
}

static void finish(const narrowing *to, tp_bfp *d_input) {
  d_input->exponent = to->exponent;
  d_input->peak = (int32_t)vmaxvq_u32(0, to->peak);
}

void tp_conv_backward_input_mve_s16(const tp_conv_backward_mve_params *params, const tp_bfp *d_acc,
                                    const int32_t *filter, const tp_bfp *addend, tp_bfp *d_input, void *column) {
  const tp_window *w = &params->window;
  const int32_t narrow = tp_accumulator_shift(d_acc->peak, params->l1);
  narrowing to = narrow_by(d_acc, narrow, params->l1, addend);
  const int32_t groups = w->input_c / 4;
  int16_t *result = d_input->mantissa;
  const int16_t *added = addend != NULL ? addend->mantissa : NULL;
  for (int32_t y = 0; y < w->input_h; y++) {
    for (int32_t x = 0; x < w->input_w; x++) {
      const int8_t *packed = (const int8_t *)filter;
      if (params->pointwise != 0) {
        copy_mantissas(d_acc->mantissa + (y * w->input_w + x) * w->output_c, w->output_c, narrow, column);
      } else {
        gather_column(w, d_acc->mantissa, y, x, narrow, column);
      }
      if (groups > 0) {
        all_channels(&to, column, params->chunks - 1, packed, groups, added, result);
      }
      if (4 * groups < w->input_c) {
        packed += groups * params->chunks * 32;
        last_channels(&to, column, params->chunks, packed, 4 * groups, w->input_c, added, result);
      }
      result += w->input_c;
      added = added != NULL ? added + w->input_c : NULL;
    }
  }
  finish(&to, d_input);
}

void tp_conv_backward_rows_mve_s16(const tp_conv_backward_params *params, const tp_bfp *d_acc, const int8_t *filter,
                                   const int32_t *l1, const tp_bfp *addend, tp_bfp *d_input, void *scratch) {
  const tp_window *w = &params->window;
  const int32_t norm = l1 != NULL ? l1[0] : params->l1;
  const int32_t narrow = tp_accumulator_shift(d_acc->peak, norm);
  narrowing to = narrow_by(d_acc, narrow, norm, addend);
  const int16_t *g = d_acc->mantissa;
  const int16_t *added = addend != NULL ? addend->mantissa : NULL;
  int16_t *result = d_input->mantissa;
  int32_t *rounded = scratch;
  for (int32_t p = 0; p < w->input_h * w->input_w; p++) {
    for (int32_t r = 0; r < w->output_c; r++) {
      rounded[r] = tp_round_shift_s32(*g++, narrow);
    }
    for (int32_t c = 0; c < w->input_c; c += 4) {
      const mve_pred16_t some = vctp32q((uint32_t)(w->input_c - c));
      const int8_t *row = filter + c;
      int32x4_t acc = vdupq_n_s32(0);
      for (int32_t r = 0; r < w->output_c; r++) {
        acc = vmlaq_n_s32(acc, vldrbq_z_s32(row, some), rounded[r]);
        row += w->input_c;
      }
      put(&to, acc, added != NULL ? added + c : NULL, some, result + c);
    }
    result += w->input_c;
    added = added != NULL ? added + w->input_c : NULL;
  }
  finish(&to, d_input);
}

/* The output whose window covers `input` with `tap`, or -1. */
static inline int32_t covering_output(int32_t input, int32_t tap, int32_t stride, int32_t pad, int32_t dilation,
                                      int32_t outputs) {
  const int32_t distance = input + pad - tap * dilation;
  if (stride == 1) {
    return distance < outputs ? tp_max_s32(distance, -1) : -1;
  }
  return tp_covering_output(input, tap, stride, pad, dilation, outputs);
}

/* The outputs that input (y,x) contributes to, and through which tap of the filter; returns how many. */
static int32_t list_taps(const tp_window *w, int32_t y, int32_t x, tp_tap *taps) {
  int32_t count = 0;
  for (int32_t i = 0; i < w->kernel_h; i++) {
    const int32_t oy = covering_output(y, i, w->stride_h, w->pad_top, w->dilation_h, w->output_h);
    for (int32_t j = 0; oy >= 0 && j < w->kernel_w; j++) {
      const int32_t ox = covering_output(x, j, w->stride_w, w->pad_left, w->dilation_w, w->output_w);
      if (ox >= 0) {
        taps[count].data = (oy * w->output_w + ox) * w->output_c;
        taps[count].filter = (i * w->kernel_w + j) * w->output_c;
        count++;
      }
    }
  }
  return count;
}

/* Eight channels of one tap, from so many bytes on of its mantissas and of its filter. */
#define EIGHT_CHANNELS(even, odd, mantissa, weight)        \
  "vldrh.16 %q[x], [%[data], #" mantissa "]\n"             \
  "vrshl.s16 %q[x], %[narrow]\n"                           \
  "vldrb.s16 %q[f], [%[weights], #" weight "]\n"           \
  "vmullb.s16 %q[product], %q[x], %q[f]\n"                 \
  "vadd.i32 %q[" even "], %q[" even "], %q[product]\n"     \
  "vmullt.s16 %q[product], %q[x], %q[f]\n"                 \
  "vadd.i32 %q[" odd "], %q[" odd "], %q[product]\n"

/* The sums of 16 channels over all taps: of the even ones of each half in sum[0] and sum[2], of the odd ones behind. */
static inline void sixteen_channels(const tp_tap *taps, int32_t count, const int16_t *g, const int8_t *filter,
                                    int32_t narrow, int32x4_t sum[4]) {
  int32x4_t s0 = vdupq_n_s32(0), s1 = s0, s2 = s0, s3 = s0, product;
  int16x8_t x, f;
  int32_t data, weights;
  __asm__ volatile(
      "wls lr, %[count], 2f\n"
      "1: ldrd %[data], %[weights], [%[taps]], #8\n"
      "add %[data], %[g], %[data], lsl #1\n"
      "add %[weights], %[filter], %[weights]\n"
      EIGHT_CHANNELS("s0", "s1", "0", "0") EIGHT_CHANNELS("s2", "s3", "16", "8")
      "le lr, 1b\n"
      "2:\n"
      : [s0] "+&w"(s0), [s1] "+&w"(s1), [s2] "+&w"(s2), [s3] "+&w"(s3), [product] "=&w"(product), [x] "=&w"(x),
        [f] "=&w"(f), [data] "=&r"(data), [weights] "=&l"(weights), [taps] "+&r"(taps)
      : [count] "r"(count), [g] "r"(g), [filter] "r"(filter), [narrow] "r"(narrow)
      : "lr", "memory");
  sum[0] = s0;
  sum[1] = s1;
  sum[2] = s2;
  sum[3] = s3;
}

/* The sums of up to eight channels: those of even ones in *even, of odd ones in *odd. Nothing behind them is read. */
static void some_channels(const tp_tap *taps, int32_t count, const int16_t *g, const int8_t *filter, int32_t narrow,
                          mve_pred16_t some, int32x4_t *even, int32x4_t *odd) {
  int32x4_t even_sum = vdupq_n_s32(0), odd_sum = vdupq_n_s32(0);
  for (int32_t t = 0; t < count; t++) {
    const int16x8_t x = vrshlq_n_s16(vldrhq_z_s16(g + taps[t].data, some), narrow);
    const int16x8_t f = vldrbq_z_s16(filter + taps[t].filter, some);
    even_sum = vaddq_s32(even_sum, vmullbq_int_s16(x, f));
    odd_sum = vaddq_s32(odd_sum, vmulltq_int_s16(x, f));
  }
  *even = even_sum;
  *odd = odd_sum;
}

/* Up to eight mantissas from their sums. */
static inline void put_eight(narrowing *to, int32x4_t even, int32x4_t odd, mve_pred16_t some, int16_t *result) {
  even = vrshlq_n_s32(even, to->shift);
  odd = vrshlq_n_s32(odd, to->shift);
  to->peak = vmaxaq_s32(vmaxaq_s32(to->peak, even), odd);
  vstrhq_p_s16(result, vmovntq_s32(vreinterpretq_s16_s32(even), odd), some);
}

void tp_depthwise_conv_backward_input_mve_s16(const tp_conv_backward_params *params, const tp_bfp *d_acc,
                                              const int8_t *filter, tp_bfp *d_input, void *scratch) {
  const tp_window *w = &params->window;
  const tp_tap *taps = scratch;
  const int16_t *g = d_acc->mantissa;
  const int32_t narrow = tp_accumulator_shift(d_acc->peak, params->l1);
  narrowing to = narrow_by(d_acc, narrow, params->l1, NULL);
  int16_t *result = d_input->mantissa;
  for (int32_t y = 0; y < w->input_h; y++) {
    for (int32_t x = 0; x < w->input_w; x++) {
      const int32_t count = list_taps(w, y, x, scratch);
      int32_t c = 0;
      for (; c + 16 <= w->input_c; c += 16) {
        int32x4_t sum[4];
        sixteen_channels(taps, count, g + c, filter + c, -narrow, sum);
        put_eight(&to, sum[0], sum[1], vctp16q(8), result + c);
        put_eight(&to, sum[2], sum[3], vctp16q(8), result + c + 8);
      }
      for (; c < w->input_c; c += 8) {
        const mve_pred16_t some = vctp16q((uint32_t)(w->input_c - c));
        int32x4_t even, odd;
        some_channels(taps, count, g + c, filter + c, -narrow, some, &even, &odd);
        put_eight(&to, even, odd, some, result + c);
      }
      result += w->input_c;
    }
  }
  finish(&to, d_input);
}

#endif
