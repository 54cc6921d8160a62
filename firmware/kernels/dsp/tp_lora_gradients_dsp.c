#include "tinypeft/tp_kernels.h"
#include "tinypeft/tp_kernels_dsp_backward.h"
#include "tinypeft/tp_pairs.h"

/* Make the first `skip` positions of a line 0, and take them out of the totals. */
static void leave_out(const int16_t *from, int32_t stride, int32_t positions, int32_t skip, int32_t valid,
                      int32_t count, uint32_t *columns, int32_t *total) {
  for (int32_t p = 0; p < skip; p++) {
    const int32_t at = p + positions % 2;
    for (int32_t j = 0; j < valid; j++) {
      columns[at / 2 * count + j] &= at % 2 == 0 ? 0xFFFF0000u : 0;
      total[j] -= from[p * stride + j];
    }
  }
}

#define ONES 0x00010001u

/* Two columns of a line as put_columns makes them, and one. */
static void put_two(const int16_t *value, int32_t stride, int32_t positions, int32_t count, uint32_t *word,
                    int32_t total[2]) {
  int32_t first = total[0], second = total[1];
  if (positions % 2 != 0) {
    const uint32_t both = tp_load_word(value);
    word[0] = both & 0xFFFFu;
    word[1] = both >> 16;
    first += tp_low_half(both);
    second += tp_high_half(both);
    value += stride;
    word += count;
  }
  for (int32_t left = positions / 2; left > 0; left--) {
    const uint32_t here = tp_load_word(value), next = tp_load_word(value + stride);
    word[0] = tp_pkhbt(here, next);
    word[1] = tp_pkhtb(next, here);
    first = tp_smlad(word[0], ONES, first);
    second = tp_smlad(word[1], ONES, second);
    value += 2 * stride;
    word += count;
  }
  total[0] = first;
  total[1] = second;
}

static void put_one(const int16_t *value, int32_t stride, int32_t positions, int32_t count, uint32_t *word,
                    int32_t *total) {
  if (positions % 2 != 0) {
    *word = (uint16_t)*value;
    *total += *value;
    value += stride;
    word += count;
  }
  for (int32_t left = positions / 2; left > 0; left--) {
    *word = tp_make_pair(value[0], value[stride]);
    *total = tp_smlad(*word, ONES, *total);
    value += 2 * stride;
    word += count;
  }
}

/* Columns j < valid of a line, from[p*stride + j], as a tp_correlate_routine takes `count` of them; total[j] grows by
 * their sums. The first `skip` positions count as 0. */
static void put_columns(const int16_t *from, int32_t stride, int32_t positions, int32_t skip, int32_t valid,
                        int32_t count, uint32_t *columns, int32_t *total) {
  if (valid < count) {
    memset(columns, 0, (size_t)((positions + 1) / 2 * count) * sizeof *columns);
  }
  int32_t j = 0;
  for (; j + 2 <= valid; j += 2) {
    put_two(from + j, stride, positions, count, columns + j, total + j);
  }
  if (j < valid) {
    put_one(from + j, stride, positions, count, columns + j, total + j);
  }
  leave_out(from, stride, positions, skip, valid, count, columns, total);
}

/* What sums of columns start from. */
static void put_start(const int32_t *total, int32_t offset, int32_t count, uint32_t *start) {
  for (int32_t j = 0; j < count; j++) {
    start[j] = (uint32_t)(total[j] * offset);
  }
}

int tp_lora_gradient_b_dsp_s32(const void *params, const tp_bfp *d_output, const void *source, int32_t row,
                               int32_t column, int32_t shift, int32_t *gradient) {
  const tp_lora_gradient_dsp_params *p = params;
  const int32_t rank = p->lora.rank, channels = p->lora.output_c, positions = p->lora.positions;
  const int32_t rows = tp_min_s32(p->block, channels - row), paired = rows & ~1;
  uint32_t *const columns = (uint32_t *)(gradient + p->block * rank);
  const int kept = p->chunk == positions && p->count == rank; /* columns, from the first block on */
  uint32_t left_int32 = 0; /* of pairs of rows */
  (void)column;
  if (p->chunk < positions) {
    memset(gradient, 0, (size_t)(rows * rank) * sizeof *gradient);
  }
  for (int32_t done = 0; done < positions; done += p->chunk) {
    const int32_t begin = tp_min_s32(done, positions - p->chunk);
    const int32_t last_shift = done + p->chunk < positions ? 0 : shift;
    const int16_t *const hidden = (const int16_t *)source + begin * rank;
    const int16_t *const g = d_output->mantissa + begin * channels + row;
    for (int32_t r = 0; r < rank; r += p->count) {
      if (row == 0 || !kept) {
        int32_t total[TP_CORRELATE_COLUMNS] = {0};
        put_columns(hidden + r, rank, p->chunk, done - begin, p->count, p->count, columns + p->count, total);
        put_start(total, 0, p->count, columns);
      }
      for (int32_t c = 0; c < paired; c += 2) {
        const uint32_t pair = 1u << (c / 2);
        if ((left_int32 & pair) == 0 && p->routine(g + c, columns, gradient + c * rank + r, last_shift) != 0) {
          left_int32 |= pair;
        }
      }
    }
  }
  for (int32_t c = left_int32 != 0 ? 0 : paired; c < rows; c++) {
    if (c == paired || (left_int32 >> (c / 2) & 1) != 0) {
      (void)tp_lora_gradient_b_s32(&p->lora, d_output, source, row + c, 0, shift, gradient + c * rank);
    }
  }
  return 1;
}

/* Rows whose sums left int32 once more. */
static void widen_rows(const tp_filter_gradient_dsp_params *p, const tp_bfp *d_output, const void *source, int32_t row,
                       int32_t rows, int32_t shift, int32_t *gradient) {
  for (int32_t j = 0; j < rows; j++) {
    (void)tp_filter_gradient_wide_s32(&p->filter, d_output, source, row + j, 0, shift, gradient + j * p->width);
  }
}

int tp_pointwise_gradient_dsp_s32(const void *params, const tp_bfp *d_output, const void *source, int32_t row,
                                  int32_t column, int32_t shift, int32_t *gradient) {
  const tp_filter_gradient_dsp_params *p = params;
  const tp_window *w = &p->filter.window;
  const int32_t channels = w->input_c, positions = w->output_h * w->output_w;
  const int32_t rows = tp_min_s32(p->count, w->output_c - row);
  const int32_t count = tp_min_s32(p->width, channels - column);
  uint32_t *const columns = (uint32_t *)(gradient + p->count * p->width);
  uint32_t left_int32 = 0;
  if (p->chunk < positions) {
    memset(gradient, 0, (size_t)(p->count * channels) * sizeof *gradient);
  }
  for (int32_t done = 0; done < positions && left_int32 == 0; done += p->chunk) {
    const int32_t begin = tp_min_s32(done, positions - p->chunk);
    const int32_t last_shift = done + p->chunk < positions ? 0 : shift;
    const int8_t *const input = (const int8_t *)source + begin * channels + column;
    if (column == 0) { /* other parts of the rows have the same columns */
      int32_t total[TP_CORRELATE_COLUMNS] = {0};
      put_columns(d_output->mantissa + begin * w->output_c + row, w->output_c, p->chunk, done - begin, rows, p->count,
                  columns + p->count, total);
      put_start(total, p->filter.input_offset, p->count, columns);
    }
    for (int32_t k = 0; k < count; k += 2) {
      left_int32 |= p->routine(input + k, columns, gradient + k, last_shift);
    }
  }
  if (left_int32 != 0) {
    widen_rows(p, d_output, source, row, rows, shift, gradient);
  }
  return 1;
}

/* The last tap of an odd number of them: what the routine adds behind it is taken back. */
static uint32_t correlate_last(const tp_filter_gradient_dsp_params *p, const int8_t *x, const uint32_t *columns,
                               int32_t size, int32_t *sums, int32_t shift) {
  int32_t behind[TP_CORRELATE_COLUMNS];
  for (int32_t j = 0; j < p->count; j++) {
    behind[j] = sums[j * size + 1];
    sums[j * size + 1] = 0;
  }
  const uint32_t left_int32 = p->routine(x, columns, sums, shift);
  for (int32_t j = 0; j < p->count; j++) {
    sums[j * size + 1] = behind[j];
  }
  return left_int32;
}

int tp_window_gradient_dsp_s32(const void *params, const tp_bfp *d_output, const void *source, int32_t row,
                               int32_t column, int32_t shift, int32_t *gradient) {
  const tp_filter_gradient_dsp_params *p = params;
  const tp_window *w = &p->filter.window;
  const int32_t line = w->kernel_w * w->input_c, size = w->kernel_h * line;
  const int32_t image_rows = (p->chunk - 1) * w->stride_h + (w->kernel_h - 1) * w->dilation_h + 1;
  const int32_t rows = tp_min_s32(p->count, w->output_c - row);
  uint32_t *const columns = (uint32_t *)(gradient + p->count * size + 1);
  int8_t *const image = (int8_t *)(columns + (1 + p->chunk * ((w->output_w + 1) / 2)) * p->count);
  uint32_t left_int32 = 0;
  (void)column;
  if (p->chunk < w->output_h) {
    memset(gradient, 0, (size_t)(p->count * size) * sizeof *gradient);
  }
  for (int32_t done = 0; done < w->output_h && left_int32 == 0; done += p->chunk) {
    const int32_t begin = tp_min_s32(done, w->output_h - p->chunk);
    const int32_t last_shift = done + p->chunk < w->output_h ? 0 : shift;
    int32_t total[TP_CORRELATE_COLUMNS] = {0};
    for (int32_t y = 0; y < image_rows; y++) {
      tp_padded_row_dsp(w, source, begin * w->stride_h + y - w->pad_top, -p->filter.input_offset, p->pitch,
                        image + y * p->pitch);
    }
    for (int32_t i = 0; i < p->chunk; i++) {
      const int32_t y = begin + i;
      put_columns(d_output->mantissa + y * w->output_w * w->output_c + row, w->output_c, w->output_w,
                  y < done ? w->output_w : 0, rows, p->count, columns + (1 + i * ((w->output_w + 1) / 2)) * p->count,
                  total);
    }
    put_start(total, p->filter.input_offset, p->count, columns);
    for (int32_t i = 0; i < w->kernel_h; i++) {
      const int8_t *const x = image + i * w->dilation_h * p->pitch;
      int32_t k = 0;
      for (; k + 2 <= line; k += 2) {
        left_int32 |= p->routine(x + k, columns, gradient + i * line + k, last_shift);
      }
      if (k < line) {
        left_int32 |= correlate_last(p, x + k, columns, size, gradient + i * line + k, last_shift);
      }
    }
  }
  if (left_int32 != 0) {
    widen_rows(p, d_output, source, row, rows, shift, gradient);
  }
  return 1;
}
