#include "tinypeft/tp_mve.h"

#if defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 1)

/* A window of up to 4x4 taps of one channel is one vector: each of its rows is a word, four neighbouring columns,
 * gathered from rows of words that were made from the input. At a stride of 1 two outputs share a window, with the
 * taps moved by one for the second. Input rows whose numbers differ by a multiple of the stride lie behind each other,
 * in a bank of their own, so that from each output to the next, rows included, all addresses grow by the same step. */
typedef struct {
  const tp_depthwise_mve_params *params;
  int32_t starts;     /* windows in an output row: pairs of outputs, or outputs */
  int32_t unit;       /* windows in a group of four outputs: 2 or 4 */
  int32_t channels;   /* at a time */
  int32_t row_bytes;  /* of words */
  int32_t *offsets;   /* of a group's outputs, four for each group */
  int8_t *words;
  int8_t *padding;    /* a pixel of it, then room for copies of four */
  int32_t pixel_bytes;
} layout;

static int32_t first_column(const layout *l, int32_t start) {
  const tp_window *w = &l->params->window;
  return w->stride_w == 1 ? tp_min_s32(2 * start, w->output_w - 2) : start;
}

/* By how many windows the first group begins before the first window. */
static int32_t windows_before(const layout *l, int32_t rows) {
  const int32_t last = rows * l->starts % l->unit;
  return last == 0 ? 0 : l->unit - last;
}

/* The outputs of the groups of `rows` output rows. Where windows do not fill the groups the first one begins before
 * them: what it computes of nothing is overwritten by the second. */
static void list_offsets(const layout *l, int32_t rows) {
  const tp_window *w = &l->params->window;
  const int32_t windows = rows * l->starts;
  const int32_t each = 4 / l->unit; /* outputs of a window */
  int32_t *offset = l->offsets;
  for (int32_t i = -windows_before(l, rows); i < windows; i++) {
    const int32_t at = i < 0 ? i + l->unit : i;
    const int32_t row = at / l->starts;
    const int32_t column = first_column(l, at - row * l->starts);
    for (int32_t j = 0; j < each; j++) {
      *offset++ = (row * w->output_w + column + j) * w->output_c;
    }
  }
}

/* A word of four pixels for each channel. */
static inline void interleave(const int8_t *p0, const int8_t *p1, const int8_t *p2, const int8_t *p3, int32_t chunks,
                              int8_t *words) {
  __asm__ volatile(
      "dls lr, %[chunks]\n"
      "1:\n"
      "vldrb.8 q0, [%[p0]], #16\n"
      "vldrb.8 q1, [%[p1]], #16\n"
      "vldrb.8 q2, [%[p2]], #16\n"
      "vldrb.8 q3, [%[p3]], #16\n"
      "vst40.8 {q0, q1, q2, q3}, [%[words]]\n"
      "vst41.8 {q0, q1, q2, q3}, [%[words]]\n"
      "vst42.8 {q0, q1, q2, q3}, [%[words]]\n"
      "vst43.8 {q0, q1, q2, q3}, [%[words]]!\n"
      "le lr, 1b\n"
      : [p0] "+r"(p0), [p1] "+r"(p1), [p2] "+r"(p2), [p3] "+r"(p3), [words] "+r"(words)
      : [chunks] "r"(chunks)
      : "q0", "q1", "q2", "q3", "lr", "memory");
}

/* The same at `count` places, `next` bytes apart, of at most 16 channels; words are `step` bytes apart. */
static inline void interleave_line(const int8_t *p0, int32_t c, int32_t next, int32_t count, int8_t *words,
                                   int32_t step) {
  const int8_t *p1 = p0 + c, *p2 = p1 + c, *p3 = p2 + c;
  __asm__ volatile(
      "dls lr, %[count]\n"
      "1:\n"
      "vldrb.8 q0, [%[p0]]\n"
      "vldrb.8 q1, [%[p1]]\n"
      "vldrb.8 q2, [%[p2]]\n"
      "vldrb.8 q3, [%[p3]]\n"
      "add %[p0], %[p0], %[next]\n"
      "add %[p1], %[p1], %[next]\n"
      "add %[p2], %[p2], %[next]\n"
      "add %[p3], %[p3], %[next]\n"
      "vst40.8 {q0, q1, q2, q3}, [%[words]]\n"
      "vst41.8 {q0, q1, q2, q3}, [%[words]]\n"
      "vst42.8 {q0, q1, q2, q3}, [%[words]]\n"
      "vst43.8 {q0, q1, q2, q3}, [%[words]]\n"
      "add %[words], %[words], %[step]\n"
      "le lr, 1b\n"
      : [p0] "+&r"(p0), [p1] "+&r"(p1), [p2] "+&r"(p2), [p3] "+&r"(p3), [words] "+&r"(words)
      : [count] "r"(count), [next] "r"(next), [step] "r"(step)
      : "q0", "q1", "q2", "q3", "lr", "memory");
}

/* Where column x of a row is read: padding outside the image. */
static inline const int8_t *column(const layout *l, const int8_t *row, int32_t x) {
  const tp_window *w = &l->params->window;
  return x < 0 || x >= w->input_w ? l->padding : row + x * w->input_c;
}

/* The same of a row from which a whole vector may leave the input: then a copy. */
static TP_COLD const int8_t *copied_column(const layout *l, const int8_t *row, const int8_t *end, int32_t x, int32_t k) {
  const int8_t *at = column(l, row, x);
  if (at == l->padding || end - at >= l->pixel_bytes) {
    return at;
  }
  int8_t *copy = l->padding + (1 + k) * l->pixel_bytes;
  tp_copy_mve_s8(copy, at, l->channels);
  return copy;
}

/* The words of one input row. */
static TP_NOINLINE void make_row(const layout *l, const int8_t *input, int32_t y, int8_t *words) {
  const tp_window *w = &l->params->window;
  if (y < 0 || y >= w->input_h) {
    tp_fill_mve_s8(words, l->params->padding, l->row_bytes);
    return;
  }
  const int32_t c = w->input_c;
  const int32_t word_bytes = 4 * l->channels;
  const int32_t chunks = l->pixel_bytes / 16;
  const int8_t *row = input + y * w->input_w * c;
  const int8_t *end = input + w->input_h * w->input_w * c;
  const int8_t *last = end - 3 * c - l->pixel_bytes; /* from where four whole vectors can be read */
  const int leaves = end - row < (w->input_w - 1) * c + l->pixel_bytes;
  const int32_t each = w->stride_w == 1 ? 2 : w->stride_w;
  int32_t start = 0;
  while (start < l->starts) {
    const int32_t x = first_column(l, start) * w->stride_w - w->pad_left;
    const int8_t *p = row + x * c;
    if (x < 0 || x + 3 >= w->input_w || p > last) {
      if (leaves) {
        interleave(copied_column(l, row, end, x, 0), copied_column(l, row, end, x + 1, 1),
                   copied_column(l, row, end, x + 2, 2), copied_column(l, row, end, x + 3, 3), chunks, words);
      } else {
        interleave(column(l, row, x), column(l, row, x + 1), column(l, row, x + 2), column(l, row, x + 3), chunks,
                   words);
      }
      words += word_bytes;
      start++;
      continue;
    }
    /* all behind it that lie inside, but for the last one, which may begin elsewhere */
    const int32_t inside = tp_min_s32((w->input_w - 4 - x) / each, (int32_t)(last - p) / (each * c)) + 1;
    const int32_t count = tp_max_s32(tp_min_s32(inside, l->starts - 1 - start), 1);
    if (chunks == 1) {
      interleave_line(p, c, each * c, count, words, word_bytes);
    }
    for (int32_t i = 0; chunks > 1 && i < count; i++) {
      interleave(p, p + c, p + 2 * c, p + 3 * c, chunks, words + word_bytes * i);
      p += each * c;
    }
    words += word_bytes * count;
    start += count;
  }
}

/* Rows of words in a bank, of which each has one for every output row, and those behind them that windows reach. */
static int32_t bank_rows(const tp_window *w, int32_t rows, int32_t bank) {
  return rows + (w->kernel_h - 1 - bank) / w->stride_h;
}

/* Where a bank begins. In front of the next one is room for what is written behind the last channels. */
static int32_t bank_offset(const layout *l, int32_t bank) {
  int32_t offset = 0;
  for (int32_t i = 0; i < bank; i++) {
    offset += bank_rows(&l->params->window, l->params->rows, i) * l->row_bytes + 64;
  }
  return offset;
}

/* Rows of words that the output rows before also read become the first ones; returns how many. */
static int32_t keep_rows(const layout *l, int32_t first) {
  const tp_window *w = &l->params->window;
  if (first == 0 || w->stride_h > 1) {
    return 0;
  }
  const int32_t kept = w->kernel_h - 1;
  tp_copy_mve_s8(l->words, l->words + l->params->rows * l->row_bytes, kept * l->row_bytes);
  return kept;
}

/* The words of all input rows that `rows` output rows from the number `first` on read. */
static void make_rows(const layout *l, const int8_t *input, int32_t first, int32_t rows) {
  const tp_window *w = &l->params->window;
  const int32_t top = first * w->stride_h - w->pad_top, kept = keep_rows(l, first);
  for (int32_t bank = 0; bank < tp_min_s32(w->stride_h, w->kernel_h); bank++) {
    int8_t *words = l->words + bank_offset(l, bank) + kept * l->row_bytes;
    for (int32_t i = kept; i < bank_rows(w, rows, bank); i++) {
      make_row(l, input, top + bank + i * w->stride_h, words);
      words += l->row_bytes;
    }
  }
}

#define WINDOW                              \
  "vldrw.u32 %q[x], [%[words], %q[taps]]\n" \
  "add %[words], %[words], %[step]\n"
#define PAIR(a, b)                       \
  WINDOW                                 \
  "vmladav.s8 %[" a "], %q[x], %q[w0]\n" \
  "vmladav.s8 %[" b "], %q[x], %q[w1]\n"
#define ONE(a) \
  WINDOW       \
  "vmladav.s8 %[" a "], %q[x], %q[w0]\n"
#define PAIRS PAIR("a0", "a1") PAIR("a2", "a3")
#define ONES ONE("a0") ONE("a1") ONE("a2") ONE("a3")

/* One channel; `outputs` and `inputs` are those of TAIL. */
#define GROUPS(WINDOWS, TAIL, outputs, inputs)                                                                 \
  __asm__ volatile("dls lr, %[a0]\n"                                                                           \
                   "1:\n" WINDOWS TP_FOUR_MVE TP_BIAS_MVE TP_MULTIPLY_MVE TAIL("%q[offset]")                   \
                   "vldrw.u32 %q[to], [%[offsets]], #16\n"                                                     \
                   "vstrb.32 %q[x], [%[output], %q[to]]\n"                                                     \
                   "le lr, 1b\n"                                                                               \
                   : [a0] "+&Te"(a0), [a1] "=&Te"(a1), [a2] "=&Te"(a2), [a3] "=&Te"(a3), [x] "=&w"(x),         \
                     [to] "=&w"(to), [words] "+&r"(words), [offsets] "+&r"(offsets) outputs                    \
                   : [w0] "w"(w0), [w1] "w"(w1), [taps] "w"(taps), [output] "r"(output + c), [step] "r"(step), \
                     [bias] "r"(bias[c]), [multiplier] "r"(multiplier[c]), [shift] "r"(shift[c]),              \
                     [offset] "w"(offset) inputs                                                               \
                   : "lr", "memory")

typedef struct {
  const int8_t *filter;
  const int32_t *bias, *multiplier, *shift;
} tables;

/* All channels of `rows` output rows. */
#define CHANNELS(name, WINDOWS, filter_bytes)                                                                     \
  static TP_NOINLINE void name(const layout *l, const tables *t, uint32x4_t taps, int32_t rows, int8_t *output) { \
    const int32_t before = windows_before(l, rows), groups = (rows * l->starts + before) / l->unit;               \
    const tp_output_mve *o = &l->params->output;                                                                  \
    const int32_t channels = l->channels, step = 4 * channels;                                                    \
    const int32_t ties = o->ties;                                                                                 \
    const int32x4_t offset = vdupq_n_s32(o->output_offset);                                                       \
    const int32x4_t low = vdupq_n_s32(o->activation_min), high = vdupq_n_s32(o->activation_max);                  \
    const int32_t *bias = t->bias, *multiplier = t->multiplier, *shift = t->shift;                                \
    const int8_t *first_words = l->words - before * step;                                                         \
    const int8_t *filter = t->filter;                                                                             \
    for (int32_t c = 0; c < channels; c++) {                                                                      \
      int32_t a0 = groups, a1, a2, a3;                                                                            \
      int32x4_t x, to, free;                                                                                      \
      const int8x16_t w0 = vldrbq_s8(filter), w1 = vldrbq_s8(filter + (filter_bytes) - 16);                       \
      const int8_t *words = first_words + 4 * c;                                                                  \
      const int32_t *offsets = l->offsets;                                                                        \
      if (ties != 0 && shift[c] < 0) { /* a shift of 0 does not round */                                          \
        GROUPS(WINDOWS, TP_TIES_MVE, TP_FREE_MVE, );                                                              \
      } else {                                                                                                    \
        GROUPS(WINDOWS, TP_CLAMPED_MVE, , TP_CLAMP_MVE);                                                          \
      }                                                                                                           \
      filter += (filter_bytes);                                                                                   \
    }                                                                                                             \
  }

CHANNELS(channels_in_pairs, PAIRS, 32)
CHANNELS(channels_in_ones, ONES, 16)

typedef void channels_function(const layout *l, const tables *t, uint32x4_t taps, int32_t rows, int8_t *output);

/* The offset of each row of a window from the first one. */
static uint32x4_t row_offsets(const layout *l) {
  const tp_window *w = &l->params->window;
  uint32_t taps[4];
  for (int32_t i = 0; i < 4; i++) {
    const int32_t bank_row = i / w->stride_h;
    const int32_t bank = i - bank_row * w->stride_h;
    taps[i] = i < w->kernel_h ? (uint32_t)(bank_offset(l, bank) + bank_row * l->row_bytes) : 0u;
  }
  return vldrwq_u32(taps);
}

void tp_depthwise_conv_mve_s8(const tp_depthwise_mve_params *params, const int8_t *input, const int32_t *filter,
                              const int32_t *bias, const int32_t *multiplier, const int32_t *shift, int8_t *output,
                              void *scratch) {
  const tp_window *w = &params->window;
  const int in_pairs = w->stride_w == 1;
  channels_function *compute = in_pairs ? channels_in_pairs : channels_in_ones;
  const int32_t together = params->channels, filter_bytes = in_pairs ? 32 : 16;
  layout l = {.params = params, .starts = in_pairs ? (w->output_w + 1) / 2 : w->output_w, .unit = in_pairs ? 2 : 4};
  l.channels = together;
  l.row_bytes = 4 * l.starts * together;
  l.pixel_bytes = (together + 15) / 16 * 16;
  l.offsets = scratch;
  l.padding = (int8_t *)scratch + 16 * params->groups;
  l.words = (int8_t *)scratch + tp_max_s32(16 * params->groups + 5 * l.pixel_bytes, 4 * (l.unit - 1) * together);
  tp_fill_mve_s8(l.padding, params->padding, l.pixel_bytes);
  const uint32x4_t taps = row_offsets(&l);
  int32_t listed = 0;
  for (int32_t c = 0; c < w->output_c; c += together) {
    const tables t = {(const int8_t *)filter + c * filter_bytes, bias + c, multiplier + c, shift + c};
    int8_t *to = output + c;
    for (int32_t first = 0; first < w->output_h; first += params->rows) {
      const int32_t rows = tp_min_s32(params->rows, w->output_h - first);
      if (rows != listed) {
        list_offsets(&l, rows);
        listed = rows;
      }
      make_rows(&l, input + c, first, rows);
      compute(&l, &t, taps, rows, to);
      to += rows * w->output_w * w->output_c;
    }
  }
}

#endif
