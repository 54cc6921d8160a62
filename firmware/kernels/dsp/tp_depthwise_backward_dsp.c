#include "tinypeft/tp_pairs.h"
#include "tinypeft/tp_kernels.h"
#include "tinypeft/tp_kernels_dsp_backward.h"

#define TAPS 3

/* The planes of two channels, (2,rows,width): of each, mantissas where they lie in the input, stride and padding
 * included, with zeros between and around them. */
typedef struct {
  int16_t *first;
  int32_t size, width;
  int32_t top, left; /* where output (0,0) lies in the whole plane */
} planes;

/* A row of outputs of two channels into both planes, `step` elements apart there. */
static inline void put_row(const int16_t *source, const int16_t *end, int32_t channels, int32_t step, int32_t narrow,
                           int16_t *first, int16_t *second) {
  for (; source < end; source += channels, first += step, second += step) {
    uint32_t pair = tp_load_word(source);
    if (narrow > 0) {
      pair = tp_make_pair(tp_round_shift_s32(tp_low_half(pair), narrow),
                          tp_round_shift_s32(tp_high_half(pair), narrow));
    }
    *first = (int16_t)pair;
    *second = (int16_t)(pair >> 16);
  }
}

/* Rows begin..end - 1 of the whole plane of two channels, from `g` on, into those of the planes from `row` on. */
static TP_NOINLINE void gather(const tp_window *w, const planes *to, const int16_t *g, int32_t begin, int32_t end,
                               int32_t row, int32_t narrow) {
  const int32_t channels = w->output_c, step = w->stride_w, size = to->size;
  /* of outputs beyond the plane's width no input has anything */
  const int32_t reached = tp_min_s32(w->output_w, (to->width - 1 - to->left) / step + 1) * channels;
  int16_t *plane = to->first + row * to->width;
  int32_t oy = 0, at = to->top; /* the next output row, and where it lies */
  while (at < begin && oy < w->output_h) {
    oy++;
    at += w->stride_h;
  }
  for (int32_t y = begin; y < end; y++, plane += to->width) {
    if (y != at || oy >= w->output_h) {
      memset(plane, 0, (size_t)to->width * sizeof *plane);
      memset(plane + size, 0, (size_t)to->width * sizeof *plane);
      continue;
    }
    const int16_t *source = g + oy * w->output_w * channels;
    int16_t *first = plane + to->left;
    if (narrow == 0) {
      put_row(source, source + reached, channels, step, 0, first, first + size);
    } else {
      put_row(source, source + reached, channels, step, narrow, first, first + size);
    }
    oy++;
    at += w->stride_h;
  }
}

/* The filter of channel c as the gradient's window meets it, from the last tap to the first. */
static void turn(const int8_t *filter, int32_t channels, uint32_t taps[2 * TAPS]) {
  for (int32_t i = 0; i < TAPS; i++) {
    const int8_t *row = filter + (TAPS - 1 - i) * TAPS * channels;
    taps[2 * i] = tp_make_pair(row[2 * channels], row[channels]);
    taps[2 * i + 1] = tp_make_pair(row[channels], row[0]);
  }
}

void tp_depthwise_conv_backward_input_dsp_s16(const tp_depthwise_backward_dsp_params *params, const tp_bfp *d_acc,
                                              const int8_t *filter, tp_bfp *d_input, void *scratch) {
  const tp_window *w = &params->conv.window;
  const int32_t channels = w->input_c;
  const int32_t narrow = tp_accumulator_shift(d_acc->peak, params->conv.l1);
  tp_plane_block block;
  block.shift = tp_narrow_shift(tp_round_shift_s64(d_acc->peak, narrow) * params->conv.l1, TP_BFP_MAX);
  block.half = tp_half_of(block.shift);
  const int32_t width = w->input_w + w->input_w % 2 + TAPS - 1;
  const int32_t kept = TAPS - 1;
  const planes to = {scratch, (params->band + kept) * width, width, TAPS - 1 - w->pad_top, TAPS - 1 - w->pad_left};
  memset(scratch, 0, (size_t)(2 * to.size) * sizeof(int16_t));
  for (int32_t c = 0; c < channels; c += 2) {
    uint32_t taps[2][2 * TAPS];
    turn(filter + c, channels, taps[0]);
    turn(filter + c + 1, channels, taps[1]);
    for (int32_t y = 0; y < w->input_h; y += block.rows) {
      block.rows = tp_min_s32(params->band, w->input_h - y);
      int32_t begin = y;
      if (y > 0) { /* the rows that both bands read: results may lie over the others already */
        for (int32_t j = 0; j < 2; j++) {
          int16_t *plane = to.first + j * to.size;
          memmove(plane, plane + params->band * width, (size_t)(kept * width) * sizeof *plane);
        }
        begin += kept;
      }
      gather(w, &to, d_acc->mantissa + c, begin, y + block.rows + kept, begin - y, narrow);
      int16_t *result = d_input->mantissa + y * w->input_w * channels + c;
      params->routine(to.first, result, taps[0], &block);
      params->routine(to.first + to.size, result + 1, taps[1], &block);
    }
  }
  d_input->exponent = d_acc->exponent + narrow + block.shift;
  d_input->peak = tp_peak_s16(d_input->mantissa, w->input_h * w->input_w * channels);
}
