#include "tinypeft/tp_accumulate.h"
#include "tinypeft/tp_pairs.h"
#include "tinypeft/tp_kernels.h"
#include "tinypeft/tp_kernels_dsp_backward.h"

#define POSITIONS 4

/* Where row `n` of a column of position `p` lies among the columns. */
static inline int32_t place(int32_t n, int32_t p) { return n / 2 * (2 * POSITIONS) + 2 * p + n % 2; }

/* Four positions of `rows` mantissas each, one behind the other, side by side. */
static TP_NOINLINE void interleave(const int16_t *g, int32_t rows, uint32_t *columns) {
  const int16_t *g1 = g + rows;
  const int16_t *g2 = g1 + rows;
  const int16_t *g3 = g2 + rows;
  for (const int16_t *end = g1 - rows % 2; g < end; g += 2) {
    const uint32_t a = tp_load_word(g), b = tp_load_word(g1), c = tp_load_word(g2), d = tp_load_word(g3);
    columns[0] = a;
    columns[1] = b;
    columns[2] = c;
    columns[3] = d;
    g1 += 2;
    g2 += 2;
    g3 += 2;
    columns += POSITIONS;
  }
  if (rows % 2 != 0) {
    columns[0] = (uint16_t)*g;
    columns[1] = (uint16_t)*g1;
    columns[2] = (uint16_t)*g2;
    columns[3] = (uint16_t)*g3;
  }
}

/* One tap of a column: mantissas rounded to `narrow` bits fewer, or zeros of no source, every other one of which lie
 * `step` elements apart from `even` and from `odd` on. */
static inline void put_tap(const int16_t *source, int32_t channels, int32_t narrow, int32_t step, int16_t *even,
                           int16_t *odd) {
  const int32_t half = tp_half_of(narrow);
  for (const int16_t *end = even + channels / 2 * step; even < end; even += step, odd += step) {
    *even = source == NULL ? 0 : (int16_t)((*source++ + half) >> narrow);
    *odd = source == NULL ? 0 : (int16_t)((*source++ + half) >> narrow);
  }
  if (channels % 2 != 0) {
    *even = source == NULL ? 0 : (int16_t)((*source + half) >> narrow);
  }
}

/* Column `p` of the mantissas of every output that the input (y,x) contributes to, (Cout,KH,KW), zero where there is
 * none, rounded to `narrow` bits fewer. */
static void gather(const tp_window *w, const int16_t *g, int32_t y, int32_t x, int32_t narrow, int32_t p,
                   int16_t *columns) {
  const int32_t taps = w->kernel_h * w->kernel_w;
  for (int32_t t = 0; t < taps; t++) {
    const int32_t i = t / w->kernel_w;
    const int32_t j = t - i * w->kernel_w;
    const int32_t oy = tp_covering_output(y, i, w->stride_h, w->pad_top, w->dilation_h, w->output_h);
    const int32_t ox = tp_covering_output(x, j, w->stride_w, w->pad_left, w->dilation_w, w->output_w);
    const int outside = oy < 0 || ox < 0;
    put_tap(outside ? NULL : g + (oy * w->output_w + ox) * w->output_c, w->output_c, narrow, place(2 * taps, 0),
            columns + place(t, p), columns + place(t + taps, p));
  }
}

/* The columns of `count` positions from `position` on. */
static void make_columns(const tp_window *w, int in_line, const int16_t *g, int32_t position, int32_t count,
                         int32_t narrow, void *columns) {
  const int32_t rows = w->kernel_h * w->kernel_w * w->output_c;
  if (in_line && narrow == 0 && count == POSITIONS) {
    interleave(g + position * rows, rows, columns);
    return;
  }
  for (int32_t p = 0; p < count; p++) {
    const int32_t y = (position + p) / w->input_w;
    gather(w, g, y, position + p - y * w->input_w, narrow, p, columns);
  }
}

void tp_conv_backward_input_dsp_s16(const tp_conv_backward_dsp_params *params, const tp_bfp *d_acc,
                                    const int8_t *filter, const int32_t *l1, const tp_bfp *addend, tp_bfp *d_input,
                                    void *scratch) {
  const tp_window *w = &params->conv.window;
  const int32_t norm = l1 != NULL ? l1[0] : params->conv.l1;
  const int32_t narrow = tp_accumulator_shift(d_acc->peak, norm);
  const int64_t bound = tp_round_shift_s64(d_acc->peak, narrow) * norm;
  int32_t exponent = d_acc->exponent + narrow;
  tp_narrow_block to = {0, 0, 0, 0, NULL, 0, 0};
  if (addend != NULL) {
    const int32_t common = tp_common_exponent(bound, exponent, addend->peak, addend->exponent, TP_BFP_MAX);
    const int32_t addend_shift = addend->peak != 0 ? tp_min_s32(common - addend->exponent, 30) : 0;
    to.shift = bound != 0 ? tp_min_s32(common - exponent, 31) : 0; /* beyond 31 all becomes 0 */
    to.addend_half = tp_half_of(addend_shift);
    to.addend_scale = tp_make_pair(tp_max_s32(addend_shift, 0), (int32_t)1 << tp_max_s32(-addend_shift, 0));
    if (to.shift < 0 || bound > INT32_MAX - tp_half_of(to.shift)) {
      tp_conv_backward_input_s16(&params->conv, d_acc, filter, l1, addend, d_input, scratch);
      return;
    }
    exponent = common;
  } else {
    to.shift = tp_narrow_shift(bound, TP_BFP_MAX);
    exponent += to.shift;
  }
  to.half = tp_half_of(to.shift);

  const int8_t *const source = params->packed != NULL ? (const int8_t *)params->packed : filter;
  const int32_t positions = w->input_h * w->input_w;
  const int in_line = w->kernel_h * w->kernel_w * w->stride_h * w->stride_w == 1 && w->pad_top == 0 && w->pad_left == 0;
  for (int32_t position = 0; position < positions; position += POSITIONS) {
    const int32_t count = tp_min_s32(positions - position, POSITIONS);
    to.addend = addend != NULL ? addend->mantissa + position * w->input_c : NULL;
    make_columns(w, in_line, d_acc->mantissa, position, count, narrow, scratch);
    (count == POSITIONS ? params->routine : params->rest)(scratch, source, d_input->mantissa + position * w->input_c,
                                                          &to);
  }
  d_input->exponent = exponent;
  d_input->peak = tp_peak_of_pairs(to.largest, to.smallest);
}
