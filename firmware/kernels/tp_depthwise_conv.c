#include "tinypeft/tp_accumulate.h"
#include "tinypeft/tp_kernels.h"

/* How many channels' accumulators are held before they are requantised. */
#define ROW_BLOCK 24

/* The taps of an output position that are inside the input: a rectangle. */
typedef struct {
  const int8_t *input, *filter; /* of the first of them */
  int32_t rows, columns;
  int32_t row_step, column_step; /* from a tap's input to that of the next row or column */
  int32_t filter_step, channels; /* from a tap's filter likewise */
  int32_t input_offset;
} tap_window;

/* Adds a tap to a sum of filter * input and to that of the filter, by which the inputs' offset comes in. */
#define TAP(filter, input) \
  f = (filter);            \
  sum += f;                \
  a += f * (input)

/* acc[j] = sum of filter * (input + input_offset) of `count` channels, each of which reads the input channel of its own
 * number, for all nine taps of three rows and columns; column_step is `channels`. */
static TP_NOINLINE void nine_taps(const tap_window *taps, int32_t count, int32_t *acc) {
  const int32_t next = taps->channels, offset = taps->input_offset;
  const int8_t *x0 = taps->input, *x1 = x0 + taps->row_step, *x2 = x1 + taps->row_step;
  const int8_t *f0 = taps->filter, *f1 = f0 + taps->filter_step, *f2 = f1 + taps->filter_step;
  for (const int32_t *end = acc + count; acc != end;) {
    int32_t f, sum = 0, a = 0;
    TAP(f0[next], x0[next]);
    TAP(f0[2 * next], x0[2 * next]);
    TAP(*f0++, *x0++);
    TAP(f1[next], x1[next]);
    TAP(f1[2 * next], x1[2 * next]);
    TAP(*f1++, *x1++);
    TAP(f2[next], x2[next]);
    TAP(f2[2 * next], x2[2 * next]);
    TAP(*f2++, *x2++);
    *acc++ = a + sum * offset;
  }
}

/* The same of two rows or two columns of three taps. */
static TP_NOINLINE void six_taps(const tap_window *taps, int32_t count, int32_t *acc) {
  const int upright = taps->rows == 3;
  const int32_t x_line = upright ? taps->row_step : taps->column_step;
  const int32_t x_next = upright ? taps->column_step : taps->row_step;
  const int32_t f_line = upright ? taps->filter_step : taps->channels;
  const int32_t f_next = upright ? taps->channels : taps->filter_step;
  const int32_t offset = taps->input_offset;
  const int8_t *x0 = taps->input, *x1 = x0 + x_line, *x2 = x1 + x_line;
  const int8_t *f0 = taps->filter, *f1 = f0 + f_line, *f2 = f1 + f_line;
  for (const int32_t *end = acc + count; acc != end;) {
    int32_t f, sum = 0, a = 0;
    TAP(f0[f_next], x0[x_next]);
    TAP(*f0++, *x0++);
    TAP(f1[f_next], x1[x_next]);
    TAP(*f1++, *x1++);
    TAP(f2[f_next], x2[x_next]);
    TAP(*f2++, *x2++);
    *acc++ = a + sum * offset;
  }
}

#undef TAP

/* The same of any taps; `repeat` channels in a row read one input channel, of which the first has been read `read`
 * times. */
static TP_NOINLINE void any_taps(const tap_window *taps, int32_t count, int32_t repeat, int32_t read, int32_t *acc) {
  const int8_t *input = taps->input, *filter = taps->filter;
  const int32_t step = taps->column_step, next = taps->channels;
  for (const int32_t *end = acc + count; acc != end; filter++) {
    int32_t a = 0, sum = 0;
    const int8_t *x_row = input, *f_row = filter;
    for (int32_t i = 0; i < taps->rows; i++) {
      const int8_t *x = x_row, *f = f_row;
      for (int32_t j = taps->columns; j > 0; j--) {
        sum += *f;
        a += *f * *x;
        x += step;
        f += next;
      }
      x_row += taps->row_step;
      f_row += taps->filter_step;
    }
    *acc++ = a + sum * taps->input_offset;
    if (++read == repeat) {
      read = 0;
      input++;
    }
  }
}

/* All channels of a position; moves on in `taps`. */
static void one_position(tap_window *taps, int32_t repeat, const tp_requantization *to, const int32_t *bias,
                         int8_t *output) {
  const int32_t channels = taps->channels;
  const int32_t count = repeat == 1 && taps->column_step == channels ? taps->rows * taps->columns : 0;
  int32_t read = 0;
  for (int32_t first = 0; first < channels; first += ROW_BLOCK) {
    int32_t acc[ROW_BLOCK];
    const int32_t block = tp_min_s32(channels - first, ROW_BLOCK);
    if (count == 9 && taps->rows == 3) {
      nine_taps(taps, block, acc);
    } else if (count == 6 && (taps->rows == 3 || taps->columns == 3)) {
      six_taps(taps, block, acc);
    } else {
      any_taps(taps, block, repeat, read, acc);
    }
    tp_requantize_row(to, first, block, acc, bias, output + first);
    read += block;
    taps->input += read / repeat;
    taps->filter += block;
    read %= repeat;
  }
}

void tp_depthwise_conv_s8(const tp_conv_params *params, const int8_t *input, const int8_t *filter, const int32_t *bias,
                          const int32_t *multiplier, const int8_t *shift, int8_t *output) {
  const tp_window *w = &params->window;
  const tp_requantization to = {multiplier, shift, params->output_offset, params->activation_min,
                                params->activation_max};
  const int32_t repeat = w->output_c / w->input_c, row = w->input_w * w->input_c;
  tap_window taps = {.row_step = w->dilation_h * row,
                     .column_step = w->dilation_w * w->input_c,
                     .filter_step = w->kernel_w * w->output_c,
                     .channels = w->output_c,
                     .input_offset = params->input_offset};
  for (int32_t oy = 0; oy < w->output_h; oy++) {
    const tp_taps rows = tp_window_taps(oy, w->stride_h, w->pad_top, w->dilation_h, w->kernel_h, w->input_h);
    const int8_t *x_row = input + rows.origin * row + rows.begin * taps.row_step;
    const int8_t *f_row = filter + rows.begin * taps.filter_step;
    taps.rows = rows.end - rows.begin;
    for (int32_t ox = 0; ox < w->output_w; ox++) {
      const tp_taps columns = tp_window_taps(ox, w->stride_w, w->pad_left, w->dilation_w, w->kernel_w, w->input_w);
      taps.columns = columns.end - columns.begin;
      taps.input = x_row + columns.origin * w->input_c + columns.begin * taps.column_step;
      taps.filter = f_row + columns.begin * w->output_c;
      one_position(&taps, repeat, &to, bias, output);
      output += w->output_c;
    }
  }
}
