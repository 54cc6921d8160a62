#include "tinypeft/tp_accumulate.h"
#include "tinypeft/tp_kernels.h"

/* How many outputs of a column have their accumulators held before they are requantised. */
#define COLUMN_BLOCK 32

/* A channel's plane with padding around it, so that windows never leave it, and the taps of that channel's filter. */
typedef struct {
  const int8_t *plane, *filter;
  int32_t pitch;                      /* from a row of the plane to the next */
  int32_t row_step, column_step;      /* from the input of a tap to that of the next row or column */
  int32_t filter_step, channels;      /* from a tap's weight likewise */
  int32_t rows, columns;              /* of taps */
} channel_taps;

/* The part of an extent of the input that lies in the plane, which begins `pad` in front of it. */
static int32_t first_inside(int32_t pad) { return tp_max_s32(-pad, 0); }
static int32_t end_inside(int32_t pad, int32_t input, int32_t plane) { return tp_min_s32(input, plane - pad); }

static void copy_channel(const tp_window *w, const int8_t *input, int32_t rows, int32_t pitch, int8_t *plane) {
  const int32_t first = first_inside(w->pad_left), last = end_inside(w->pad_top, w->input_h, rows);
  const int32_t count = end_inside(w->pad_left, w->input_w, pitch) - first, step = w->input_c;
  for (int32_t y = first_inside(w->pad_top); y < last; y++) {
    const int8_t *x = input + (y * w->input_w + first) * step;
    int8_t *to = plane + (y + w->pad_top) * pitch + first + w->pad_left;
    for (int32_t i = 0; i < count; i++) {
      to[i] = *x;
      x += step;
    }
  }
}

/* acc[i] = sum of filter * plane of `count` outputs, one below the other, from the one whose first tap is at x; for
 * three rows and columns of taps without dilation. Each row of the plane is a part of three sums. */
static TP_NOINLINE void nine_taps(const channel_taps *taps, const int8_t *x, int32_t count, int32_t *acc) {
  const int8_t *f0 = taps->filter, *f1 = f0 + taps->filter_step, *f2 = f1 + taps->filter_step;
  const int32_t next = taps->channels, pitch = taps->pitch;
  const int32_t w00 = f0[0], w01 = f0[next], w02 = f0[2 * next];
  const int32_t w10 = f1[0], w11 = f1[next], w12 = f1[2 * next];
  const int32_t w20 = f2[0], w21 = f2[next], w22 = f2[2 * next];
  int32_t upper = w00 * x[0] + w01 * x[1] + w02 * x[2];
  x += pitch;
  upper += w10 * x[0] + w11 * x[1] + w12 * x[2];
  int32_t middle = w00 * x[0] + w01 * x[1] + w02 * x[2];
  for (const int32_t *end = acc + count; acc != end;) {
    x += pitch;
    const int32_t left = x[0], centre = x[1], right = x[2];
    *acc++ = upper + w20 * left + w21 * centre + w22 * right;
    upper = middle + w10 * left + w11 * centre + w12 * right;
    middle = w00 * left + w01 * centre + w02 * right;
  }
}

/* The same of any taps. */
static TP_NOINLINE void any_taps(const channel_taps *taps, const int8_t *x, int32_t count, int32_t *acc) {
  for (const int32_t *end = acc + count; acc != end; x += taps->pitch) {
    const int8_t *x_row = x, *f_row = taps->filter;
    int32_t a = 0;
    for (int32_t i = taps->rows; i > 0; i--) {
      const int8_t *f = f_row, *tap = x_row;
      for (int32_t j = taps->columns; j > 0; j--) {
        a += *f * *tap;
        f += taps->channels;
        tap += taps->column_step;
      }
      x_row += taps->row_step;
      f_row += taps->filter_step;
    }
    *acc++ = a;
  }
}

static int32_t sum_of_filter(const channel_taps *taps) {
  const int8_t *f = taps->filter;
  int32_t sum = 0;
  for (int32_t i = taps->rows * taps->columns; i > 0; i--) {
    sum += *f;
    f += taps->channels;
  }
  return sum;
}

/* Outputs of channel c, `step` apart, from their accumulators less `start`. */
static TP_NOINLINE void requantize_column(const tp_requantization *to, int32_t c, int32_t start, const int32_t *acc,
                                          int32_t count, int8_t *output, int32_t step) {
  const int32_t multiplier = to->multiplier[c], shift = to->shift[c], output_offset = to->output_offset;
  const int32_t *end = acc + count;
  int8_t *y = output;
  if (shift < 0) {
    for (; acc != end; y += step) {
      *y = tp_saturate_s8(tp_round_away(tp_doubling_high_scale(*acc++ + start, multiplier), -shift) + output_offset);
    }
  } else {
    for (; acc != end; y += step) {
      *y = tp_saturate_s8(tp_requantize_left(*acc++ + start, multiplier, shift) + output_offset);
    }
  }
  if (to->activation_min > INT8_MIN || to->activation_max < INT8_MAX) {
    for (; output != y; output += step) {
      *output = (int8_t)tp_clamp_s32(*output, to->activation_min, to->activation_max);
    }
  }
}

void tp_depthwise_planes_s8(const tp_conv_params *params, const int8_t *input, const int8_t *filter,
                            const int32_t *bias, const int32_t *multiplier, const int8_t *shift, int8_t *output,
                            void *scratch) {
  const tp_window *w = &params->window;
  const tp_requantization to = {multiplier, shift, params->output_offset, params->activation_min,
                                params->activation_max};
  const int32_t rows = w->output_h + (w->kernel_h - 1) * w->dilation_h;
  const int32_t pitch = w->output_w + (w->kernel_w - 1) * w->dilation_w, channels = w->output_c;
  channel_taps taps = {.plane = scratch, .filter = filter, .pitch = pitch, .row_step = w->dilation_h * pitch,
                       .column_step = w->dilation_w, .filter_step = w->kernel_w * channels, .channels = channels,
                       .rows = w->kernel_h, .columns = w->kernel_w};
  const int nine = w->kernel_h == 3 && w->kernel_w == 3 && w->dilation_h == 1 && w->dilation_w == 1;
  int32_t acc[COLUMN_BLOCK];
  memset(scratch, -params->input_offset, (size_t)(rows * pitch));
  for (int32_t c = 0; c < channels; c++) {
    copy_channel(w, input + c, rows, pitch, scratch);
    const int32_t start = bias[c] + params->input_offset * sum_of_filter(&taps);
    for (int32_t first = 0; first < w->output_h; first += COLUMN_BLOCK) {
      const int32_t count = tp_min_s32(w->output_h - first, COLUMN_BLOCK);
      const int8_t *x = taps.plane + first * pitch;
      int8_t *y = output + first * w->output_w * channels + c;
      for (int32_t ox = 0; ox < w->output_w; ox++) {
        if (nine) {
          nine_taps(&taps, x++, count, acc);
        } else {
          any_taps(&taps, x++, count, acc);
        }
        requantize_column(&to, c, start, acc, count, y, w->output_w * channels);
        y += channels;
      }
    }
    taps.filter++;
  }
}
