#include "tinypeft/tp_arithmetic.h"
#include "tinypeft/tp_channel_sums.h"
#include "tinypeft/tp_kernels_dsp_elementwise.h"
#include "tinypeft/tp_limited_rows.h"

/* The taps of a window inside the image: `rows` times `columns` pixels from `first` on. */
typedef struct {
  const int8_t *first;
  int32_t rows, columns;
  int32_t row_bytes, pixel;
} patch;

static patch patch_at(const tp_window *w, const int8_t *input, int32_t y, int32_t x) {
  const tp_taps rows = tp_window_taps(y, w->stride_h, w->pad_top, 1, w->kernel_h, w->input_h);
  const tp_taps columns = tp_window_taps(x, w->stride_w, w->pad_left, 1, w->kernel_w, w->input_w);
  const int32_t pixel = (rows.origin + rows.begin) * w->input_w + columns.origin + columns.begin;
  patch found = {input + pixel * w->input_c, rows.end - rows.begin, columns.end - columns.begin,
                 w->input_w * w->input_c, w->input_c};
  if (found.columns == w->input_w) { /* whole rows adjoin */
    found.columns *= found.rows;
    found.rows = 1;
  }
  return found;
}

/* Sums of four channels, of which the first pixel is at x. */
static TP_NOINLINE void sum_four(const patch *taps, const int8_t *x, int32_t *sums) {
  const tp_channel_sums nothing = {0, 0};
  tp_channel_sums part = nothing;
  int32_t room = TP_SHORT_SUM;
  sums[0] = sums[1] = sums[2] = sums[3] = 0;
  for (int32_t y = taps->rows; y > 0; y--) {
    for (int32_t begin = 0; begin < taps->columns;) {
      if (room == 0) {
        tp_add_channel_sums(part, sums);
        part = nothing;
        room = TP_SHORT_SUM;
      }
      const int32_t count = tp_min_s32(taps->columns - begin, room);
      part = tp_add_pixels(part, x + begin * taps->pixel, count, taps->pixel);
      begin += count;
      room -= count;
    }
    x += taps->row_bytes;
  }
  tp_add_channel_sums(part, sums);
}

/* sum / count rounded half away from zero: |sum| + half at most 2^16, whose product with the reciprocal, rounded up, is
 * less than 1 / count too large. */
static inline int32_t short_mean(int32_t sum, uint32_t half, uint32_t reciprocal) {
  const int32_t sign = sum >> 31;
  const uint32_t magnitude = (uint32_t)((sum ^ sign) - sign) + half;
  const int32_t mean = (int32_t)((uint64_t)magnitude * reciprocal >> 32);
  return (mean ^ sign) - sign;
}

/* Means of windows of at most TP_SHORT_SUM taps, of `count` times four channels. */
static TP_NOINLINE void short_means(const patch *taps, int32_t count, int8_t *output) {
  const int32_t rows = taps->rows, columns = taps->columns, pixel = taps->pixel, row_bytes = taps->row_bytes;
  const uint32_t taps_inside = (uint32_t)(rows * columns);
  const uint32_t half = taps_inside / 2, reciprocal = taps_inside > 1 ? 0xFFFFFFFFu / taps_inside + 1 : 0;
  const int8_t *first = taps->first;
  for (; count > 0; count--) {
    tp_channel_sums part = {0, 0};
    const int8_t *row = first;
    for (int32_t y = rows; y > 0; y--) {
      part = tp_add_pixels(part, row, columns, pixel);
      row += row_bytes;
    }
    if (reciprocal == 0) {
      tp_store_word(output, tp_load_word(first));
    } else {
      output[0] = (int8_t)short_mean((int16_t)part.even, half, reciprocal);
      output[1] = (int8_t)short_mean((int16_t)part.odd, half, reciprocal);
      output[2] = (int8_t)short_mean((int32_t)part.even >> 16, half, reciprocal);
      output[3] = (int8_t)short_mean((int32_t)part.odd >> 16, half, reciprocal);
    }
    first += 4;
    output += 4;
  }
}

static int32_t sum_one(const patch *taps, int32_t c) {
  int32_t sum = 0;
  for (int32_t y = 0; y < taps->rows; y++) {
    for (int32_t x = 0; x < taps->columns; x++) {
      sum += taps->first[y * taps->row_bytes + x * taps->pixel + c];
    }
  }
  return sum;
}

static int8_t mean(int32_t sum, int32_t count) {
  return (int8_t)(sum > 0 ? (sum + count / 2) / count : (sum - count / 2) / count);
}

static void means(const patch *taps, int32_t channels, int8_t *output) {
  const int32_t count = taps->rows * taps->columns;
  int32_t c = channels & ~3;
  if (count <= TP_SHORT_SUM) {
    short_means(taps, channels / 4, output);
  } else {
    for (c = 0; c + 4 <= channels; c += 4) {
      int32_t sums[4];
      sum_four(taps, taps->first + c, sums);
      for (int32_t i = 0; i < 4; i++) {
        output[c + i] = mean(sums[i], count);
      }
    }
  }
  for (; c < channels; c++) {
    output[c] = mean(sum_one(taps, c), count);
  }
}

void tp_average_pool_dsp(const tp_pool_params *params, const int8_t *input, int8_t *output) {
  const tp_window *w = &params->window;
  const int32_t limited = tp_is_limited(params->activation_min, params->activation_max);
  for (int32_t y = 0; y < w->output_h; y++) {
    for (int32_t x = 0; x < w->output_w; x++) {
      const patch taps = patch_at(w, input, y, x);
      means(&taps, w->input_c, output);
      for (int32_t c = 0; limited && c < w->input_c; c++) {
        output[c] = (int8_t)tp_clamp_s32(output[c], params->activation_min, params->activation_max);
      }
      output += w->input_c;
    }
  }
}

static inline uint32_t largest_four(const patch *taps, int32_t c) {
  const int8_t *row = taps->first + c;
  uint32_t largest = tp_load_word(row);
  for (int32_t y = taps->rows; y > 0; y--) {
    const int8_t *x = row;
    for (int32_t i = taps->columns; i > 0; i--) {
      largest = tp_max_s8x4(tp_load_word(x), largest);
      x += taps->pixel;
    }
    row += taps->row_bytes;
  }
  return largest;
}

static int32_t largest_one(const patch *taps, int32_t c) {
  int32_t largest = INT8_MIN;
  for (int32_t y = 0; y < taps->rows; y++) {
    for (int32_t x = 0; x < taps->columns; x++) {
      largest = tp_max_s32(largest, taps->first[y * taps->row_bytes + x * taps->pixel + c]);
    }
  }
  return largest;
}

void tp_max_pool_dsp(const tp_pool_params *params, const int8_t *input, int8_t *output) {
  const tp_window *w = &params->window;
  const uint32_t low = (uint32_t)(uint8_t)params->activation_min * 0x01010101u;
  const uint32_t high = (uint32_t)(uint8_t)params->activation_max * 0x01010101u;
  for (int32_t y = 0; y < w->output_h; y++) {
    for (int32_t x = 0; x < w->output_w; x++) {
      const patch taps = patch_at(w, input, y, x);
      int32_t c = 0;
      for (; c + 4 <= w->input_c; c += 4) {
        tp_store_word(output, tp_min_s8x4(tp_max_s8x4(largest_four(&taps, c), low), high));
        output += 4;
      }
      for (; c < w->input_c; c++) {
        *output++ = (int8_t)tp_clamp_s32(largest_one(&taps, c), params->activation_min, params->activation_max);
      }
    }
  }
}
