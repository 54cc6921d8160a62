/* Inner products that several kernels share: a widened column of the input against rows of int8 filters. */
#ifndef TP_ACCUMULATE_H
#define TP_ACCUMULATE_H

#include "tp_arithmetic.h"
#include "tp_kernels_conv.h"

/* How many filters one pass over a column serves. */
#define TP_BLOCK 4

/* column[i] = input[i] + input_offset, widened. */
static inline void tp_widen_s8(const int8_t *input, int32_t count, int32_t input_offset, int16_t *column) {
  for (int32_t i = 0; i < count; i++) {
    column[i] = (int16_t)(input[i] + input_offset);
  }
}

/* The window at output (oy,ox) as a column (KH,KW,channels), widened and offset; padding is 0. `input` points to the
 * first of the channels that are gathered. */
static inline void tp_gather_window_s8(const tp_window *w, const int8_t *input, int32_t channels, int32_t input_offset,
                                       int32_t oy, int32_t ox, int16_t *column) {
  const tp_taps taps = tp_window_taps(ox, w->stride_w, w->pad_left, w->dilation_w, w->kernel_w, w->input_w);
  const int together = w->dilation_w == 1 && channels == w->input_c; /* the taps of a row lie one behind the other */
  const int32_t before = taps.begin * channels;
  const int32_t inside = (taps.end - taps.begin) * channels;
  const int32_t row = w->kernel_w * channels;
  for (int32_t i = 0; i < w->kernel_h; i++) {
    const int32_t y = oy * w->stride_h - w->pad_top + i * w->dilation_h;
    if (y < 0 || y >= w->input_h || inside == 0) {
      memset(column, 0, (size_t)row * sizeof *column);
      column += row;
      continue;
    }
    const int8_t *source = input + (y * w->input_w + taps.origin + taps.begin * w->dilation_w) * w->input_c;
    if (inside < row) {
      memset(column, 0, (size_t)row * sizeof *column);
    }
    if (together) {
      tp_widen_s8(source, inside, input_offset, column + before);
    } else {
      for (int32_t at = before; at < before + inside; at += channels) {
        tp_widen_s8(source, channels, input_offset, column + at);
        source += w->dilation_w * w->input_c;
      }
    }
    column += row;
  }
}

/* Whether the bytes of a and b overlap. */
static inline int tp_overlap(const void *a, int32_t a_bytes, const void *b, int32_t b_bytes) {
  const uintptr_t first = (uintptr_t)a, second = (uintptr_t)b;
  return first < second + (uintptr_t)b_bytes && second < first + (uintptr_t)a_bytes;
}

static inline void tp_copy_s8(const int8_t *from, int32_t count, int8_t *to) {
  int32_t i = 0;
#ifdef __ARM_FEATURE_UNALIGNED
  for (; i + 4 <= count; i += 4) {
    memcpy(to + i, from + i, 4); /* a load and a store */
  }
#endif
  for (; i < count; i++) {
    to[i] = from[i];
  }
}

/* The window at output (oy,ox) as tp_gather_window_s8 has it, but as it is: int8, and `padding` outside. */
static inline void tp_copy_window_s8(const tp_window *w, const int8_t *input, int32_t channels, int8_t padding,
                                     int32_t oy, int32_t ox, int8_t *column) {
  const tp_taps taps = tp_window_taps(ox, w->stride_w, w->pad_left, w->dilation_w, w->kernel_w, w->input_w);
  const int together = w->dilation_w == 1 && channels == w->input_c;
  const int32_t inside = (taps.end - taps.begin) * channels;
  const int32_t row = w->kernel_w * channels;
  for (int32_t i = 0; i < w->kernel_h; i++, column += row) {
    const int32_t y = oy * w->stride_h - w->pad_top + i * w->dilation_h;
    const int outside = y < 0 || y >= w->input_h || inside == 0;
    if (outside || inside < row) {
      memset(column, padding, (size_t)row);
    }
    if (outside) {
      continue;
    }
    const int8_t *source = input + (y * w->input_w + taps.origin + taps.begin * w->dilation_w) * w->input_c;
    int8_t *target = column + taps.begin * channels;
    const int32_t piece = together ? inside : channels;
    for (int32_t done = 0; done < inside; done += piece) {
      tp_copy_s8(source, piece, target + done);
      source += w->dilation_w * w->input_c;
    }
  }
}

/* The output coordinate whose window covers `input` with `tap`, or -1. */
static inline int32_t tp_covering_output(int32_t input, int32_t tap, int32_t stride, int32_t pad, int32_t dilation,
                                         int32_t outputs) {
  const int32_t distance = input + pad - tap * dilation;
  if (distance < 0 || distance % stride != 0 || distance / stride >= outputs) {
    return -1;
  }
  return distance / stride;
}

/* A tap of a depthwise window that lies inside the data: offsets of its first channel. */
typedef struct {
  int32_t data;
  int32_t filter;
} tp_tap;

/* acc[j] = sum_i column[i] * filter[j*filter_stride + i] for j < filters, filters <= TP_BLOCK: of a widened column, of
 * the int8 input as it is. */
void tp_dot_rows_s8(const int16_t *column, const int8_t *filter, int32_t count, int32_t filter_stride, int32_t filters,
                    int32_t acc[TP_BLOCK]);
void tp_dot_input_s8(const int8_t *input, const int8_t *filter, int32_t count, int32_t filter_stride, int32_t filters,
                     int32_t acc[TP_BLOCK]);

/* acc[j] = sum_i column[i] * filter[i*filter_stride + j] for j < filters, filters <= TP_BLOCK: columns of a filter. */
static inline void tp_dot_columns_s8(const int16_t *column, const int8_t *filter, int32_t count, int32_t filter_stride,
                                     int32_t filters, int32_t acc[TP_BLOCK]) {
  if (filters == TP_BLOCK) {
    int32_t a0 = 0, a1 = 0, a2 = 0, a3 = 0;
    for (int32_t i = 0; i < count; i++) {
      const int32_t x = column[i];
      a0 += x * filter[0];
      a1 += x * filter[1];
      a2 += x * filter[2];
      a3 += x * filter[3];
      filter += filter_stride;
    }
    acc[0] = a0;
    acc[1] = a1;
    acc[2] = a2;
    acc[3] = a3;
    return;
  }
  for (int32_t j = 0; j < filters; j++) {
    int32_t a = 0;
    for (int32_t i = 0; i < count; i++) {
      a += column[i] * filter[i * filter_stride + j];
    }
    acc[j] = a;
  }
}

#endif
