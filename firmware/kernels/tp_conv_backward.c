#include "tinypeft/tp_accumulate.h"
#include "tinypeft/tp_kernels.h"
#include "tinypeft/tp_narrowing.h"

/* One tap of a column: `channels` mantissas, rounded to `narrow` bits fewer. */
static void copy_tap(const tp_mantissa *source, int32_t channels, int32_t narrow, int16_t *column) {
  if (source == NULL) {
    memset(column, 0, (size_t)channels * sizeof *column);
    return;
  }
  if (TP_GRADIENT_BITS == 16 && narrow == 0) {
    memcpy(column, source, (size_t)channels * sizeof *column);
    return;
  }
  for (int32_t c = 0; c < channels; c++) {
    column[c] = (int16_t)tp_round_shift_s32(source[c], narrow);
  }
}

/* Gather the mantissas of every output that (y,x) contributes to: tap by tap, (KH,KW,channels), zero where there is
 * none. `g` points to the first of the output channels. */
static void gather_column(const tp_window *w, const tp_mantissa *g, int32_t channels, int32_t y, int32_t x,
                          int32_t narrow, int16_t *column) {
  for (int32_t i = 0; i < w->kernel_h; i++) {
    const int32_t oy = tp_covering_output(y, i, w->stride_h, w->pad_top, w->dilation_h, w->output_h);
    for (int32_t j = 0; j < w->kernel_w; j++) {
      const int32_t ox = tp_covering_output(x, j, w->stride_w, w->pad_left, w->dilation_w, w->output_w);
      const tp_mantissa *source = oy < 0 || ox < 0 ? NULL : g + (oy * w->output_w + ox) * w->output_c;
      copy_tap(source, channels, narrow, column);
      column += channels;
    }
  }
}

/* Gather the mantissas that the window at (oy,ox) covers: (KH,KW,input_c), zero outside. */
static void gather_window(const tp_window *w, const tp_mantissa *g, int32_t oy, int32_t ox, int32_t narrow,
                          int16_t *column) {
  for (int32_t i = 0; i < w->kernel_h; i++) {
    const int32_t y = oy * w->stride_h - w->pad_top + i * w->dilation_h;
    for (int32_t j = 0; j < w->kernel_w; j++) {
      const int32_t x = ox * w->stride_w - w->pad_left + j * w->dilation_w;
      const int outside = y < 0 || y >= w->input_h || x < 0 || x >= w->input_w;
      copy_tap(outside ? NULL : g + (y * w->input_w + x) * w->input_c, w->input_c, narrow, column);
      column += w->input_c;
    }
  }
}

/* sum over taps and the column's channels of column * filter, for `results` channels of the filter's last axis, which
 * has filter_c; `filter` points to the first of them. column (taps,channels), filter (channels,taps,filter_c). */
static void column_dot(const int16_t *column, const int8_t *filter, int32_t taps, int32_t channels, int32_t filter_c,
                       int32_t results, int32_t acc[TP_BLOCK]) {
  tp_dot_columns_s8(column, filter, channels, taps * filter_c, results, acc);
  for (int32_t t = 1; t < taps; t++) {
    int32_t more[TP_BLOCK];
    tp_dot_columns_s8(column + t * channels, filter + t * filter_c, channels, taps * filter_c, results, more);
    for (int32_t j = 0; j < results; j++) {
      acc[j] += more[j];
    }
  }
}

/* How many output channels, from c on, read the input channels from `first` on. */
static int32_t channels_reading(const tp_conv_backward_params *params, int32_t c, int32_t first) {
  if (params->first_channel == NULL) {
    return params->group_c;
  }
  int32_t end = c;
  while (end < params->window.output_c && params->first_channel[end] == first) {
    end++;
  }
  return end - c;
}

void tp_conv_backward_input_s16(const tp_conv_backward_params *params, const tp_bfp *d_acc, const int8_t *filter,
                                const int32_t *l1, const tp_bfp *addend, tp_bfp *d_input, void *column) {
  const tp_window *w = &params->window;
  const int32_t norm = l1 != NULL ? l1[0] : params->l1;
  const int32_t narrow = tp_accumulator_shift(d_acc->peak, norm);
  const int64_t bound = tp_round_shift_s64(d_acc->peak, narrow) * norm;
  int32_t exponent = d_acc->exponent + narrow, shift = 0, addend_shift = 0;
  if (addend != NULL) {
    exponent = tp_common_exponent(bound, exponent, addend->peak, addend->exponent, TP_SUM_MAX);
    shift = exponent - d_acc->exponent - narrow;
    addend_shift = exponent - addend->exponent;
  }
  const int32_t taps = w->kernel_h * w->kernel_w;
  tp_narrowing to = tp_narrow_within(addend != NULL ? TP_SUM_MAX : bound);
  do {
    for (int32_t y = 0; y < w->input_h; y++) {
      for (int32_t x = 0; x < w->input_w; x++) {
        int32_t position = (y * w->input_w + x) * w->input_c;
        const int8_t *group = filter;
        int32_t c = 0;
        for (int32_t first = 0; first < w->input_c; first += params->filter_c) {
          const int32_t group_c = channels_reading(params, c, first);
          if (group_c > 0) {
            gather_column(w, d_acc->mantissa + c, group_c, y, x, narrow, column);
          }
          for (int32_t k = 0; k < params->filter_c; k += TP_BLOCK) {
            int32_t acc[TP_BLOCK] = {0};
            const int32_t channels = tp_min_s32(params->filter_c - k, TP_BLOCK);
            if (group_c > 0) {
              column_dot(column, group + k, taps, group_c, params->filter_c, channels, acc);
            }
            for (int32_t j = 0; j < channels; j++) {
              int32_t value = acc[j];
              if (addend != NULL) {
                const int64_t sum = tp_round_shift_s64(acc[j], shift);
                value = (int32_t)(sum + tp_round_shift_s64(addend->mantissa[position + k + j], addend_shift));
              }
              tp_put_mantissa(&to, value, &d_input->mantissa[position + k + j]);
            }
          }
          position += params->filter_c;
          group += group_c * taps * params->filter_c;
          c += group_c;
        }
      }
    }
  } while (tp_next_pass(&to));
  tp_finish(&to, exponent, d_input);
}

void tp_transpose_conv_backward_input_s16(const tp_conv_backward_params *params, const tp_bfp *d_acc,
                                          const int8_t *filter, tp_bfp *d_input, void *column) {
  const tp_window *w = &params->window;
  const int32_t taps = w->kernel_h * w->kernel_w;
  const int32_t narrow = tp_accumulator_shift(d_acc->peak, params->l1);
  tp_narrowing to = tp_narrow_within(tp_round_shift_s64(d_acc->peak, narrow) * params->l1);
  do {
    tp_mantissa *result = d_input->mantissa;
    for (int32_t oy = 0; oy < w->output_h; oy++) {
      for (int32_t ox = 0; ox < w->output_w; ox++) {
        gather_window(w, d_acc->mantissa, oy, ox, narrow, column);
        for (int32_t k = 0; k < w->output_c; k += TP_BLOCK) {
          int32_t acc[TP_BLOCK];
          const int32_t channels = tp_min_s32(w->output_c - k, TP_BLOCK);
          column_dot(column, filter + k, taps, w->input_c, w->output_c, channels, acc);
          for (int32_t j = 0; j < channels; j++) {
            tp_put_mantissa(&to, acc[j], result++);
          }
        }
      }
    }
  } while (tp_next_pass(&to));
  tp_finish(&to, d_acc->exponent + narrow, d_input);
}

/* The outputs that input (y,x) contributes to, and through which tap of the filter; returns how many. */
static int32_t list_taps(const tp_window *w, int32_t rows, int32_t y, int32_t x, tp_tap *taps) {
  int32_t count = 0;
  for (int32_t i = 0; i < w->kernel_h; i++) {
    const int32_t oy = tp_covering_output(y, i, w->stride_h, w->pad_top, w->dilation_h, w->output_h);
    for (int32_t j = 0; oy >= 0 && j < w->kernel_w; j++) {
      const int32_t ox = tp_covering_output(x, j, w->stride_w, w->pad_left, w->dilation_w, w->output_w);
      if (ox >= 0) {
        taps[count].data = ((oy % rows) * w->output_w + ox) * w->output_c;
        taps[count].filter = (i * w->kernel_w + j) * w->output_c;
        count++;
      }
    }
  }
  return count;
}

/* The accumulator of `multiplied` output channels from c on, which read one input channel. */
static int32_t depthwise_dot(const tp_tap *taps, int32_t count, const tp_mantissa *g, const int8_t *filter, int32_t c,
                             int32_t multiplied, int32_t narrow) {
  int32_t acc = 0;
  for (int32_t m = c; m < c + multiplied; m++) {
    for (int32_t t = 0; t < count; t++) {
      acc += tp_round_shift_s32(g[taps[t].data + m], narrow) * filter[taps[t].filter + m];
    }
  }
  return acc;
}

void tp_depthwise_conv_backward_input_s16(const tp_conv_backward_params *params, const tp_bfp *d_acc,
                                          const int8_t *filter, tp_bfp *d_input, void *scratch) {
  const tp_window *w = &params->window;
  const int32_t multiplied = w->output_c / w->input_c;
  const int32_t row_size = w->output_w * w->output_c;
  const int in_place = d_input->mantissa == d_acc->mantissa;
  tp_tap *taps = scratch;
  tp_mantissa *ring = (tp_mantissa *)(void *)(taps + w->kernel_h * w->kernel_w);
  const int32_t rows = in_place ? (w->kernel_h - 1) * w->dilation_h + 1 : w->output_h;
  const tp_mantissa *g = in_place ? ring : d_acc->mantissa;
  const int32_t narrow = tp_accumulator_shift(d_acc->peak, params->l1);
  tp_narrowing to = tp_narrow_within(tp_round_shift_s64(d_acc->peak, narrow) * params->l1);
  do {
    int32_t copied = 0;
    for (int32_t y = 0; y < w->input_h; y++) {
      while (in_place && copied < w->output_h && copied <= y + w->pad_top) {
        memcpy(ring + (copied % rows) * row_size, d_acc->mantissa + copied * row_size, (size_t)row_size * sizeof *ring);
        copied++;
      }
      for (int32_t x = 0; x < w->input_w; x++) {
        const int32_t count = list_taps(w, rows, y, x, taps);
        tp_mantissa *result = d_input->mantissa + (y * w->input_w + x) * w->input_c;
        for (int32_t k = 0; k < w->input_c; k++) {
          const int32_t acc = depthwise_dot(taps, count, g, filter, k * multiplied, multiplied, narrow);
          tp_put_mantissa(&to, acc, &result[k]);
        }
      }
    }
  } while (tp_next_pass(&to));
  tp_finish(&to, d_acc->exponent + narrow, d_input);
}

void tp_gradient_add_s16(const tp_gradient_add_params *params, const tp_bfp *a, const tp_bfp *b, tp_bfp *sum) {
  const int32_t exponent = tp_common_exponent(a->peak, a->exponent, b->peak, b->exponent, TP_SUM_MAX);
  const int32_t shift_a = exponent - a->exponent;
  const int32_t shift_b = exponent - b->exponent;
  tp_narrowing to = tp_narrow_within(TP_SUM_MAX);
  do {
    for (int32_t i = 0; i < params->size; i++) {
      const int64_t value = tp_round_shift_s64(a->mantissa[i], shift_a) + tp_round_shift_s64(b->mantissa[i], shift_b);
      tp_put_mantissa(&to, (int32_t)value, &sum->mantissa[i]);
    }
  } while (tp_next_pass(&to));
  tp_finish(&to, exponent, sum);
}
