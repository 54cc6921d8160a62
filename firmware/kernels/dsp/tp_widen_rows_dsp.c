#include "tinypeft/tp_arithmetic.h"
#include "tinypeft/tp_simd.h"
#include "tinypeft/tp_kernels_dsp.h"

static int16_t *widen_ordered(const int8_t *input, int32_t count, int16_t *row) {
  for (int32_t i = count >> 3; i > 0; i--) {
    const uint32_t four = tp_load_word(input);
    const uint32_t next = tp_load_word(input + 4);
    tp_store_word(row, tp_sxtb16(four));
    tp_store_word(row + 2, tp_sxtb16_ror8(four));
    tp_store_word(row + 4, tp_sxtb16(next));
    tp_store_word(row + 6, tp_sxtb16_ror8(next));
    input += 8;
    row += 8;
  }
  if ((count & 4) != 0) {
    const uint32_t four = tp_load_word(input);
    tp_store_word(row, tp_sxtb16(four));
    tp_store_word(row + 2, tp_sxtb16_ror8(four));
    input += 4;
    row += 4;
  }
  return row;
}

static inline void widen_four(uint32_t four, int16_t *row) {
  const uint32_t even = tp_sxtb16(four);
  const uint32_t odd = tp_sxtb16_ror8(four);
  tp_store_word(row, tp_pkhbt(even, odd));
  tp_store_word(row + 2, tp_pkhtb(odd, even));
}

static int16_t *widen(const int8_t *input, int32_t count, int16_t *row) {
  for (int32_t i = count >> 3; i > 0; i--) {
    const uint32_t four = tp_load_word(input);
    const uint32_t next = tp_load_word(input + 4);
    widen_four(four, row);
    widen_four(next, row + 4);
    input += 8;
    row += 8;
  }
  if ((count & 4) != 0) {
    widen_four(tp_load_word(input), row);
    input += 4;
    row += 4;
  }
  for (int32_t left = count & 3; left > 0; left--) {
    *row++ = *input++;
  }
  return row;
}

static int16_t *fill(int32_t value, int32_t count, int16_t *row) {
  for (int32_t i = 0; i < count; i++) {
    *row++ = (int16_t)value;
  }
  return row;
}

/* Row y of the image, which may lie outside, as all positions of an output row read it: `padding` around it. */
static TP_NOINLINE void widen_row(const tp_window *w, int32_t padding, int32_t ordered, const int8_t *input, int32_t y,
                                  int16_t *row) {
  const int32_t width = (w->output_w - 1) * w->stride_w + (w->kernel_w - 1) * w->dilation_w + 1;
  int32_t before = tp_min_s32(tp_max_s32(w->pad_left, 0), width);
  const int32_t first = before - w->pad_left;
  int32_t inside = tp_max_s32(tp_min_s32(width - before, w->input_w - first), 0);
  if (y < 0 || y >= w->input_h) {
    before = width;
    inside = 0;
  }
  row = fill(padding, before * w->input_c, row);
  if (inside > 0) {
    const int8_t *source = input + (y * w->input_w + first) * w->input_c;
    row = (ordered ? widen_ordered : widen)(source, inside * w->input_c, row);
  }
  (void)fill(padding, (width - before - inside) * w->input_c, row);
}

void tp_widen_ring_dsp(const tp_conv_dsp_params *params, const int8_t *input, int32_t oy, tp_row_ring *ring) {
  const tp_window *w = &params->window;
  const int32_t top = oy * w->stride_h;
  for (ring->end = tp_max_s32(ring->end, top); ring->end < top + w->kernel_h; ring->end++) {
    widen_row(w, params->padding, params->ordered, input, ring->end - w->pad_top,
              ring->first + ring->end % w->kernel_h * params->pitch);
  }
  for (int32_t i = 0; i < w->kernel_h; i++) {
    ring->rows[i] = ring->first + (top + i) % w->kernel_h * params->pitch - 2;
  }
}

/* `count` words to the front of a buffer. */
static void move_words(uint32_t *to, const uint32_t *from, int32_t count) {
  for (; count > 0; count--) {
    *to++ = *from++;
  }
}

int16_t *tp_widen_flat_dsp(const tp_conv_flat_dsp_params *params, const int8_t *input, int32_t oy, tp_flat_rows *held) {
  const tp_window *w = &params->window;
  const int32_t extent = (w->kernel_h - 1) * w->dilation_h + 1;
  const int32_t needed = (params->together - 1) * w->stride_h + extent;
  const int32_t top = oy * w->stride_h;
  const int32_t end = top + (oy + params->together <= w->output_h ? needed : extent);
  int16_t *const rows = held->rows;
  if (top + needed > held->first + params->rows) {
    const int32_t words = params->pitch >> 1;
    held->end = tp_max_s32(held->end, top);
    move_words((void *)rows, (const uint32_t *)(const void *)rows + (top - held->first) * words,
               (held->end - top) * words);
    held->first = top;
  }
  for (; held->end < end; held->end++) {
    widen_row(w, params->padding, params->ordered, input, held->end - w->pad_top,
              rows + (held->end - held->first) * params->pitch);
  }
  return rows + (top - held->first) * params->pitch;
}
