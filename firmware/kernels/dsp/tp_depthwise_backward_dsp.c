#include "tinypeft/tp_kernels.h"
#include "tinypeft/tp_kernels_dsp_backward.h"
#include "tinypeft/tp_pairs.h"

#define TAPS 3
/* What int8 taps may be multiplied with, as a power of two, within int16. */
#define TAPS_SHIFT 8

/* The planes of two channels, (2,pairs,width) words: of each, mantissas where they lie in the input, stride and padding
 * included, with zeros between and around them. A word holds two rows of a column. */
typedef struct {
  int16_t *first;
  int32_t size, width; /* halves of a plane, of a pair of rows */
  int32_t top, left; /* where output (0,0) lies in the whole plane, as in the params */
  int32_t shift; /* mantissas are multiplied with 2^shift */
  int clear; /* whether there may be something else where zeros belong */
} planes;

/* Zeros in a pair of rows of both planes, where there may be something else. */
static void clear(const planes *to, int16_t *plane) {
  for (int32_t i = 0; to->clear && i < 2; i++) {
    memset(plane + i * to->size, 0, (size_t)to->width * sizeof *plane);
  }
}

/* Pairs of rows begin..end - 1 of the whole plane of two channels, from `g` on, to `plane` and its like, by the routine
 * for it. */
static TP_NOINLINE void gather(const tp_depthwise_backward_dsp_params *params, const planes *to, const int16_t *g,
                               int32_t begin, int32_t end, int16_t *plane) {
  const tp_window *w = &params->conv.window;
  const int32_t row = w->output_w * w->output_c;
  const uint32_t mask = 0xFFFFu << to->shift & 0xFFFFu;
  const int32_t step = params->step, last = step * end - to->top;
  int32_t y = step * begin - to->top;
  while (y < last) {
    tp_gather_block block = {1, 0, to->shift, 0};
    if (y >= 0 && y + 1 < w->output_h) {
      block.pairs = tp_min_s32(last - y, w->output_h - y + step - 2) >> (step - 1);
      block.lower = row * (int32_t)sizeof *g;
      block.mask = mask | mask << 16;
    } else if (y == -1) {
      block.mask = mask << 16;
    } else if (y == w->output_h - 1) {
      block.mask = mask;
    }
    if (block.mask != 0u) {
      int16_t *first = plane + 2 * to->left;
      params->gather(g + tp_max_s32(y, 0) * row, first, first + to->size, &block);
    } else {
      clear(to, plane);
    }
    y += step * block.pairs;
    plane += block.pairs * to->width;
  }
}

/* A row of outputs of two channels into half of a pair of rows. */
static TP_NOINLINE void put_row(const tp_window *w, const planes *to, const int16_t *source, int16_t *row) {
  const int32_t channels = w->output_c, step = 2 * w->stride_w, shift = to->shift;
  const int16_t *end = source + w->output_w * channels;
  int16_t *first = row + 2 * to->left, *second = first + to->size;
  for (; source < end && first < row + to->width; source += channels, first += step, second += step) {
    const uint32_t pair = tp_load_word(source);
    *first = (int16_t)(pair << shift);
    *second = (int16_t)(pair >> 16 << shift);
  }
}

/* The same of any strides. A vertical stride of 2 leaves the zeros between two rows where they are. */
static TP_NOINLINE void spread(const tp_window *w, const planes *to, const int16_t *g, int32_t begin, int32_t end,
                               int16_t *plane) {
  for (; begin < end; begin++, plane += to->width) {
    const int32_t at = 2 * begin - to->top, last = (w->output_h - 1) * w->stride_h;
    if (w->stride_h != 2 || at < -1 || at > last) {
      clear(to, plane);
    }
    for (int32_t half = 0; half < 2; half++) {
      const int32_t y = at + half;
      if (y >= 0 && y <= last && y % w->stride_h == 0) {
        put_row(w, to, g + y / w->stride_h * w->output_w * w->output_c, plane + half);
      }
    }
  }
}

/* The filter of a channel as the gradient's window meets it, from the last tap to the first, times 2^shift, as the
 * routine for steps of 1 or 2 takes it. */
static void turn(const int8_t *filter, int32_t channels, int32_t step, int32_t shift, uint32_t taps[2 * TAPS]) {
  const int32_t factor = (int32_t)1 << shift;
  const int8_t *last = filter + (TAPS * TAPS - 1) * channels;
  for (int32_t j = 0; j < TAPS; j++, last -= channels) {
    const int32_t upper = last[0] * factor, middle = last[-TAPS * channels] * factor;
    const int32_t lower = last[-2 * TAPS * channels] * factor;
    taps[2 * j] = tp_make_pair(upper, step == 2 ? middle : lower);
    taps[2 * j + 1] = tp_make_pair(middle, lower);
  }
}

/* A norm of 9 taps keeps all sums within int32. */
void tp_depthwise_conv_backward_input_dsp_s16(const tp_depthwise_backward_dsp_params *params, const tp_bfp *d_acc,
                                              const int8_t *filter, tp_bfp *d_input, void *scratch) {
  const tp_window *w = &params->conv.window;
  const int32_t channels = w->input_c, pairs = params->pairs;
  const int32_t shift = tp_narrow_shift((int64_t)d_acc->peak * params->conv.l1, TP_BFP_MAX);
  const int32_t factor = 16 - params->doublings - shift; /* of sums, as a power of two */
  const int32_t taps_shift = tp_min_s32(factor, TAPS_SHIFT);
  const int32_t width = 2 * params->columns, shared = params->step - 1; /* pairs of rows that two bands read */
  const planes to = {.first = scratch,
                     .size = (pairs + shared) * width,
                     .width = width,
                     .top = params->top,
                     .left = params->left,
                     .shift = factor - taps_shift,
                     .clear = 2 * pairs < w->input_h};
  memset(scratch, 0, (size_t)(2 * to.size) * sizeof(int16_t));
  for (int32_t c = 0; c < channels; c += 2) {
    uint32_t taps[2][2 * TAPS];
    turn(filter + c, channels, params->step, taps_shift, taps[0]);
    turn(filter + c + 1, channels, params->step, taps_shift, taps[1]);
    for (int32_t y = 0; y < w->input_h; y += 2 * pairs) {
      const int32_t rows = tp_min_s32(2 * pairs, w->input_h - y), end = (rows + 1) / 2 + shared;
      int32_t kept = 0;
      if (y > 0 && shared > 0) { /* results may lie over them already */
        kept = shared;
        for (int32_t j = 0; j < 2; j++) {
          int16_t *plane = to.first + j * to.size;
          memcpy(plane, plane + pairs * width, (size_t)width * sizeof *plane);
        }
      }
      if (params->gather != NULL) {
        gather(params, &to, d_acc->mantissa + c, y / 2 + kept, y / 2 + end, to.first + kept * width);
      } else {
        spread(w, &to, d_acc->mantissa + c, y / 2 + kept, y / 2 + end, to.first + kept * width);
      }
      int16_t *result = d_input->mantissa + y * w->input_w * channels + c;
      params->routine(to.first, result, taps[0], rows);
      params->routine(to.first + to.size, result + 1, taps[1], rows);
    }
  }
  d_input->exponent = d_acc->exponent + shift;
  d_input->peak = tp_peak_s16(d_input->mantissa, w->input_h * w->input_w * channels);
}
