#include "tinypeft/tp_accumulate.h"
#include "tinypeft/tp_kernels.h"
#include "tinypeft/tp_narrowing.h"

/* By what mantissas of 8 bits are multiplied, so that the shift of a channel costs them no bits. */
#define FINER_BITS (16 - TP_GRADIENT_BITS)

static int32_t sum_s8(const int8_t *values, int32_t count) {
  int32_t sum = 0;
  for (int32_t i = 0; i < count; i++) {
    sum += values[i];
  }
  return sum;
}

/* A line of positions `step` elements apart, of a 1x1 window: four rows of A to a position, and of those that are left
 * four positions to a row. */
static void down_pointwise(int32_t positions, int32_t step, int32_t channels, int32_t rank, int32_t input_offset,
                           int32_t shift, const int8_t *input, const int8_t *lora_A, int16_t *hidden) {
  const int32_t half = shift > 0 ? (int32_t)1 << (shift - 1) : 0;
  int32_t acc[TP_BLOCK], offset[TP_BLOCK], r = 0;
  for (; r + TP_BLOCK <= rank; r += TP_BLOCK) {
    const int8_t *a = lora_A + r * channels;
    for (int32_t j = 0; j < TP_BLOCK; j++) {
      offset[j] = input_offset * sum_s8(a + j * channels, channels) + half;
    }
    for (int32_t p = 0; p < positions; p++) {
      tp_dot_input_s8(input + p * step, a, channels, channels, TP_BLOCK, acc);
      for (int32_t j = 0; j < TP_BLOCK; j++) {
        hidden[p * rank + r + j] = (int16_t)((acc[j] + offset[j]) >> shift);
      }
    }
  }
  for (; r < rank; r++) {
    const int8_t *a = lora_A + r * channels;
    offset[0] = input_offset * sum_s8(a, channels) + half;
    for (int32_t p = 0; p < positions; p += TP_BLOCK) {
      const int32_t count = tp_min_s32(positions - p, TP_BLOCK);
      tp_dot_input_s8(a, input + p * step, channels, step, count, acc);
      for (int32_t j = 0; j < count; j++) {
        hidden[(p + j) * rank + r] = (int16_t)((acc[j] + offset[0]) >> shift);
      }
    }
  }
}

/* What lies inside the input of taps side by side: `lines` of `size` elements, so many elements apart. */
typedef struct {
  int32_t lines, size, line_step, filter_step;
} covered;

/* The sum of (x + input_offset) * a over it. */
static TP_NOINLINE int32_t dot_lines(const covered *part, const int8_t *x, const int8_t *a, int32_t input_offset) {
  int32_t sum = 0;
  for (int32_t i = part->lines; i > 0; i--) {
    const int8_t *filter = a;
    const int8_t *source = x;
    for (const int8_t *end = x + part->size; source < end;) {
      sum += (*source++ + input_offset) * *filter++;
    }
    x += part->line_step;
    a += part->filter_step;
  }
  return sum;
}

/* acc[j] += sum_i (x[i] + input_offset) * rows[j*stride + i] for four rows. */
static TP_NOINLINE void dot_offset_rows(const int8_t *x, const int8_t *rows, int32_t size, int32_t stride,
                                        int32_t input_offset, int32_t acc[TP_BLOCK]) {
  const int8_t *r1 = rows + stride;
  const int8_t *r2 = r1 + stride;
  const int8_t *r3 = r2 + stride;
  int32_t a0 = acc[0], a1 = acc[1], a2 = acc[2], a3 = acc[3];
  for (const int8_t *end = x + size; x < end;) {
    const int32_t value = *x++ + input_offset;
    a0 += value * *rows++;
    a1 += value * *r1++;
    a2 += value * *r2++;
    a3 += value * *r3++;
  }
  acc[0] = a0;
  acc[1] = a1;
  acc[2] = a2;
  acc[3] = a3;
}

/* acc[j] += the part of a window for the rows a + j*stride of A, j < rows <= TP_BLOCK. */
static void down_part(const covered *part, const int8_t *x, const int8_t *a, int32_t stride, int32_t rows,
                      int32_t input_offset, int32_t acc[TP_BLOCK]) {
  if (rows == TP_BLOCK) {
    for (int32_t i = 0; i < part->lines; i++) {
      dot_offset_rows(x + i * part->line_step, a + i * part->filter_step, part->size, stride, input_offset, acc);
    }
    return;
  }
  for (int32_t j = 0; j < rows; j++) {
    acc[j] += dot_lines(part, x, a + j * stride, input_offset);
  }
}

/* One position of any window. Taps side by side are one inner product where they lie one behind the other. */
static void down_window(const tp_window *w, tp_taps rows, tp_taps columns, int32_t input_offset, int32_t shift,
                        const int8_t *input, const int8_t *lora_A, int16_t *hidden) {
  const int32_t together = w->dilation_w == 1 ? columns.end - columns.begin : 1;
  const int32_t row = w->kernel_w * w->input_c;
  const covered part = {rows.end - rows.begin, together * w->input_c, w->dilation_h * w->input_w * w->input_c, row};
  const int32_t y = rows.origin + rows.begin * w->dilation_h;
  for (int32_t r = 0; r < w->output_c; r += TP_BLOCK) {
    int32_t acc[TP_BLOCK] = {0};
    const int32_t filters = tp_min_s32(w->output_c - r, TP_BLOCK);
    const int8_t *a = lora_A + (r * w->kernel_h + rows.begin) * row;
    for (int32_t j = columns.begin; part.lines > 0 && j < columns.end; j += together) {
      const int32_t x = columns.origin + j * w->dilation_w;
      down_part(&part, input + (y * w->input_w + x) * w->input_c, a + j * w->input_c, w->kernel_h * row, filters,
                input_offset, acc);
    }
    for (int32_t j = 0; j < filters; j++) {
      *hidden++ = (int16_t)tp_round_shift_s32(acc[j], shift);
    }
  }
}

void tp_lora_down_s8(const tp_lora_down_params *params, const int8_t *input, const int8_t *lora_A,
                     const int8_t *hidden_shift, int16_t *hidden) {
  const tp_window *w = &params->window;
  if (params->pointwise) {
    const int dense = w->stride_w == 1 && w->stride_h == 1;
    const int32_t lines = dense ? 1 : w->output_h;
    const int32_t positions = dense ? w->output_h * w->output_w : w->output_w;
    for (int32_t oy = 0; oy < lines; oy++) {
      down_pointwise(positions, w->stride_w * w->input_c, w->input_c, w->output_c, params->input_offset,
                     hidden_shift[0], input + oy * w->stride_h * w->input_w * w->input_c, lora_A,
                     hidden + oy * positions * w->output_c);
    }
    return;
  }
  for (int32_t oy = 0; oy < w->output_h; oy++) {
    const tp_taps rows = tp_window_taps(oy, w->stride_h, w->pad_top, w->dilation_h, w->kernel_h, w->input_h);
    for (int32_t ox = 0; ox < w->output_w; ox++) {
      const tp_taps columns = tp_window_taps(ox, w->stride_w, w->pad_left, w->dilation_w, w->kernel_w, w->input_w);
      down_window(w, rows, columns, params->input_offset, hidden_shift[0], input, lora_A, hidden);
      hidden += w->output_c;
    }
  }
}

/* acc[j] = sum_c (g[c] * 2^FINER_BITS >> down[c]) * lora_B[c*rank + j] for four columns of B, each shift rounded half
 * up. */
static TP_NOINLINE void shifted_dot_columns(const tp_mantissa *g, const int8_t *down, const int8_t *lora_B,
                                            int32_t channels, int32_t rank, int32_t acc[TP_BLOCK]) {
  int32_t a0 = 0, a1 = 0, a2 = 0, a3 = 0;
  for (const tp_mantissa *end = g + channels; g < end;) {
    const int32_t mantissa = *g++;
    const int32_t shift = *down++;
    if (mantissa != 0) { /* clamped outputs have none */
      const int32_t value = ((mantissa * (2 << FINER_BITS) >> shift) + 1) >> 1;
      a0 += value * lora_B[0];
      a1 += value * lora_B[1];
      a2 += value * lora_B[2];
      a3 += value * lora_B[3];
    }
    lora_B += rank;
  }
  acc[0] = a0;
  acc[1] = a1;
  acc[2] = a2;
  acc[3] = a3;
}

/* The same of one column. */
static TP_NOINLINE int32_t shifted_dot(const tp_mantissa *g, const int8_t *down, const int8_t *lora_B, int32_t channels,
                                       int32_t rank) {
  int32_t sum = 0;
  for (const tp_mantissa *end = g + channels; g < end;) {
    const int32_t value = ((*g++ * (2 << FINER_BITS) >> *down++) + 1) >> 1;
    sum += value * *lora_B;
    lora_B += rank;
  }
  return sum;
}

void tp_lora_backward_hidden_s16(const tp_lora_backward_params *params, const tp_bfp *d_acc, const int8_t *lora_B,
                                 const int8_t *lora_shift, const int8_t *hidden_shift, const int32_t *l1,
                                 tp_bfp *d_hidden, void *scratch) {
  int8_t *down = scratch;
  const int32_t channels = params->output_c;
  const int32_t rank = params->rank;
  int32_t shift_min = lora_shift[0];
  for (int32_t c = 1; c < channels; c++) {
    shift_min = tp_min_s32(shift_min, lora_shift[c]);
  }
  const int32_t largest = d_acc->peak * (1 << FINER_BITS);
  const int32_t narrow = tp_accumulator_shift(largest, l1[1]);
  for (int32_t c = 0; c < channels; c++) {
    down[c] = (int8_t)tp_min_s32(narrow + lora_shift[c] - shift_min, 30);
  }
  tp_narrowing to = tp_narrow_within(tp_round_shift_s64(largest, narrow) * l1[1]);
  do {
    tp_mantissa *result = d_hidden->mantissa;
    for (int32_t p = 0; p < params->positions; p++) {
      const tp_mantissa *g = d_acc->mantissa + p * channels;
      for (int32_t r = 0; r < rank; r += TP_BLOCK) {
        int32_t acc[TP_BLOCK];
        const int32_t columns = tp_min_s32(rank - r, TP_BLOCK);
        if (columns == TP_BLOCK) {
          shifted_dot_columns(g, down, lora_B + r, channels, rank, acc);
        }
        for (int32_t j = 0; j < columns; j++) {
          const int32_t sum = columns == TP_BLOCK ? acc[j] : shifted_dot(g, down, lora_B + r + j, channels, rank);
          tp_put_mantissa(&to, sum, result++);
        }
      }
    }
  } while (tp_next_pass(&to));
  tp_finish(&to, d_acc->exponent - FINER_BITS + narrow - shift_min - hidden_shift[0], d_hidden);
}

/* sum[j] = sum_p g[p*stride] * hidden[p*rank + j] for four columns. */
static TP_NOINLINE void correlate_columns(const tp_mantissa *g, int32_t stride, const int16_t *hidden, int32_t rank,
                                          int32_t positions, int64_t sum[TP_BLOCK]) {
  int64_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
  for (; positions > 0; positions--) {
    const int32_t mantissa = *g;
    if (mantissa != 0) { /* clamped outputs have none */
      s0 += (int64_t)mantissa * hidden[0];
      s1 += (int64_t)mantissa * hidden[1];
      s2 += (int64_t)mantissa * hidden[2];
      s3 += (int64_t)mantissa * hidden[3];
    }
    g += stride;
    hidden += rank;
  }
  sum[0] = s0;
  sum[1] = s1;
  sum[2] = s2;
  sum[3] = s3;
}

/* The same of one column. */
static int64_t correlate(const tp_mantissa *g, int32_t stride, const int16_t *hidden, int32_t rank, int32_t positions) {
  int64_t sum = 0;
  for (; positions > 0; positions--) {
    sum += (int64_t)*g * *hidden;
    g += stride;
    hidden += rank;
  }
  return sum;
}

int tp_lora_gradient_b_s32(const void *params, const tp_bfp *d_output, const void *source, int32_t row, int32_t column,
                           int32_t shift, int32_t *gradient) {
  const tp_lora_backward_params *p = params;
  const tp_mantissa *g = d_output->mantissa + row;
  const int16_t *hidden = source;
  int32_t any = 0;
  (void)column;
  for (int32_t r = 0; r < p->rank; r += TP_BLOCK) {
    int64_t sum[TP_BLOCK];
    const int32_t columns = tp_min_s32(p->rank - r, TP_BLOCK);
    if (columns == TP_BLOCK) {
      correlate_columns(g, p->output_c, hidden + r, p->rank, p->positions, sum);
    } else {
      for (int32_t j = 0; j < columns; j++) {
        sum[j] = correlate(g, p->output_c, hidden + r + j, p->rank, p->positions);
      }
    }
    for (int32_t j = 0; j < columns; j++) {
      gradient[r + j] = (int32_t)tp_round_shift_s64(sum[j], shift);
      any |= gradient[r + j];
    }
  }
  return any != 0;
}
