#include "tinypeft/tp_accumulate.h"
#include "tinypeft/tp_kernels.h"
#include "tinypeft/tp_lora_add.h"

/* Most input channels of a position that is copied before the outputs of the next one are written over it. */
#define KEPT_C 128

/* How many filters one pass over the columns of two positions serves. */
#define PAIR_BLOCK 3
/* How many channels' accumulators are held before they are requantised. */
#define ROW_BLOCK 24

/* What the positions of a layer share. */
typedef struct {
  const tp_conv_params *params;
  const int8_t *filter;
  const int32_t *bias;
  tp_requantization to;
  tp_lora lora;
  int32_t count; /* of a filter's elements */
} conv_layer;

/* Where one output position is. */
typedef struct {
  int32_t y, x;
} place;

static inline place next_place(const tp_window *w, place at) {
  return at.x + 1 < w->output_w ? (place){at.y, at.x + 1} : (place){at.y + 1, 0};
}

/* The int8 inputs of a position, from `input`, its first channel, on: where they lie, or as the column of number `slot`
 * gathered in `columns`. */
static TP_NOINLINE const int8_t *read_position(const conv_layer *layer, const int8_t *input, place at, int8_t *columns,
                                               int32_t slot) {
  const tp_conv_params *params = layer->params;
  const tp_window *w = &params->window;
  if (params->direct) {
    return input + (at.y * w->stride_h * w->input_w + at.x * w->stride_w) * w->input_c;
  }
  int8_t *column = columns + slot * layer->count;
  tp_copy_window_s8(w, input, params->filter_c, (int8_t)-params->input_offset, at.y, at.x, column);
  return column;
}

/* A group's channels, from `first` on, of one position: of its int8 inputs x, or if that is NULL its widened column. */
static inline void one_group(const conv_layer *layer, const int8_t *x, const int16_t *column, int32_t first,
                             const int16_t *hidden, int8_t *output) {
  const int32_t count = layer->count, end = first + layer->params->group_c;
  while (first < end) {
    int32_t acc[ROW_BLOCK];
    const int32_t block = tp_min_s32(end - first, ROW_BLOCK);
    for (int32_t j = 0; j < block; j += TP_BLOCK) {
      const int8_t *filter = layer->filter + (first + j) * count;
      const int32_t filters = tp_min_s32(block - j, TP_BLOCK);
      if (x != NULL) {
        tp_dot_input_s8(x, filter, count, count, filters, acc + j);
      } else {
        tp_dot_rows_s8(column, filter, count, count, filters, acc + j);
      }
    }
    if (layer->lora.rank > 0) {
      tp_lora_add(&layer->lora, first, block, hidden, acc);
    }
    tp_requantize_row(&layer->to, first, block, acc, layer->bias, output + first);
    first += block;
  }
}

/* Computes one position. */
typedef void position_function(const conv_layer *layer, const int8_t *input, const int16_t *hidden, place at,
                               int8_t *output, void *columns);

/* One position: its channels in groups. */
static void one_position(const conv_layer *layer, const int8_t *input, const int16_t *hidden, place at, int8_t *output,
                         void *columns) {
  const tp_conv_params *params = layer->params;
  int32_t first = 0;
  for (int32_t channel = 0; channel < params->window.input_c; channel += params->filter_c) {
    one_group(layer, read_position(layer, input + channel, at, columns, 0), NULL, first, hidden, output);
    first += params->group_c;
  }
}

/* The same for a trained filter. */
static void one_widened_position(const conv_layer *layer, const int8_t *input, const int16_t *hidden, place at,
                                 int8_t *output, void *column) {
  const tp_conv_params *params = layer->params;
  int32_t first = 0;
  for (int32_t channel = 0; channel < params->window.input_c; channel += params->filter_c) {
    tp_gather_window_s8(&params->window, input + channel, params->filter_c, params->input_offset, at.y, at.x, column);
    one_group(layer, NULL, column, first, hidden, output);
    first += params->group_c;
  }
}

/* acc[j], acc[ROW_BLOCK + j] = sum_i x0[i], x1[i] * filter[j*count + i] for j < PAIR_BLOCK. */
static TP_NOINLINE void dot_pair(const int8_t *x0, const int8_t *x1, const int8_t *filter, int32_t count,
                                 int32_t *acc) {
  const int8_t *f0 = filter, *f1 = f0 + count, *f2 = f1 + count;
  int32_t a0 = 0, b0 = 0, a1 = 0, b1 = 0, a2 = 0, b2 = 0;
#define STEP                                          \
  do {                                                \
    const int32_t a = *x0++, b = *x1++;               \
    const int32_t g0 = *f0++, g1 = *f1++, g2 = *f2++; \
    a0 += a * g0;                                     \
    b0 += b * g0;                                     \
    a1 += a * g1;                                     \
    b1 += b * g1;                                     \
    a2 += a * g2;                                     \
    b2 += b * g2;                                     \
  } while (0)
  const int8_t *end = x0 + (count & ~7);
  while (x0 != end) {
    STEP;
    STEP;
    STEP;
    STEP;
    STEP;
    STEP;
    STEP;
    STEP;
  }
  for (end += count & 7; x0 != end;) {
    STEP;
  }
#undef STEP
  acc[0] = a0;
  acc[1] = a1;
  acc[2] = a2;
  acc[ROW_BLOCK] = b0;
  acc[ROW_BLOCK + 1] = b1;
  acc[ROW_BLOCK + 2] = b2;
}

/* The same of one filter. */
static TP_NOINLINE void dot_one(const int8_t *x0, const int8_t *x1, const int8_t *filter, int32_t count, int32_t *acc) {
  int32_t a = 0, b = 0;
  for (const int8_t *end = filter + count; filter != end;) {
    const int32_t f = *filter++;
    a += *x0++ * f;
    b += *x1++ * f;
  }
  acc[0] = a;
  acc[ROW_BLOCK] = b;
}

/* Two positions one behind the other, of inputs x0 and x1, in one group. */
static void two_positions(const conv_layer *layer, const int8_t *x0, const int8_t *x1, const int16_t *hidden,
                          int8_t *output) {
  const int32_t channels = layer->params->window.output_c, count = layer->count;
  int32_t acc[2 * ROW_BLOCK];
  for (int32_t first = 0; first < channels; first += ROW_BLOCK) {
    const int32_t block = tp_min_s32(channels - first, ROW_BLOCK);
    const int8_t *filter = layer->filter + first * count;
    int32_t j = 0;
    for (; j + PAIR_BLOCK <= block; j += PAIR_BLOCK) {
      dot_pair(x0, x1, filter + j * count, count, acc + j);
    }
    for (; j < block; j++) {
      dot_one(x0, x1, filter + j * count, count, acc + j);
    }
    if (layer->lora.rank > 0) {
      tp_lora_add_pair(&layer->lora, first, block, hidden, acc, acc + ROW_BLOCK);
    }
    tp_requantize_row(&layer->to, first, block, acc, layer->bias, output + first);
    tp_requantize_row(&layer->to, first, block, acc + ROW_BLOCK, layer->bias, output + channels + first);
  }
}

/* All positions: two at once where `pairs` is true, else by `one`. */
static void convolve(const conv_layer *layer, position_function *one, int pairs, int overlap, const int8_t *input,
                     const int16_t *hidden, int8_t *output, void *columns) {
  const tp_conv_params *params = layer->params;
  const tp_window *w = &params->window;
  int8_t kept[KEPT_C];
  place at = {0, 0};
  for (int32_t left = w->output_h * w->output_w; left > 0;) {
    int32_t done = 1;
    if (pairs && left > 1) {
      const int8_t *x0 = read_position(layer, input, at, columns, 0);
      at = next_place(w, at);
      const int8_t *x1 = read_position(layer, input, at, columns, 1);
      if (params->direct && overlap) {
        tp_copy_s8(x0, layer->count, kept);
        x0 = kept;
      }
      two_positions(layer, x0, x1, hidden, output);
      done = 2;
    } else {
      one(layer, input, hidden, at, output, columns);
    }
    at = next_place(w, at);
    left -= done;
    output += done * w->output_c;
    if (params->rank > 0) {
      hidden += done * params->rank;
    }
  }
}

static conv_layer make_layer(const tp_conv_params *params, const int8_t *filter, const int32_t *bias,
                                    const int32_t *multiplier, const int8_t *shift, const int8_t *lora_B,
                                    const int8_t *lora_shift) {
  const tp_window *w = &params->window;
  const tp_requantization to = {multiplier, shift, params->output_offset, params->activation_min,
                                params->activation_max};
  const tp_lora lora = tp_make_lora(lora_B, lora_shift, w->output_c, params->rank);
  return (conv_layer){params, filter, bias, to, lora, w->kernel_h * w->kernel_w * params->filter_c};
}

void tp_conv_s8(const tp_conv_params *params, const int8_t *input, const int8_t *filter, const int32_t *bias,
                const int32_t *multiplier, const int8_t *shift, const int16_t *hidden, const int8_t *lora_B,
                const int8_t *lora_shift, int8_t *output, void *columns) {
  const tp_window *w = &params->window;
  const conv_layer layer = make_layer(params, filter, bias, multiplier, shift, lora_B, lora_shift);
  const int overlap = tp_overlap(input, w->input_h * w->input_w * w->input_c, output,
                                 w->output_h * w->output_w * w->output_c);
  /* What the first of two positions reads is written over by the second one's outputs, if at all, behind a copy. */
  const int pairs = !TP_THUMB1 && params->group_c == w->output_c &&
                    (!params->direct || !overlap || w->input_c <= KEPT_C);
  convolve(&layer, one_position, pairs, overlap, input, hidden, output, columns);
}

void tp_conv_trained_s8(const tp_conv_params *params, const int8_t *input, const int8_t *filter, const int32_t *bias,
                        const int32_t *multiplier, const int8_t *shift, const int16_t *hidden, const int8_t *lora_B,
                        const int8_t *lora_shift, int8_t *output, void *column) {
  const conv_layer layer = make_layer(params, filter, bias, multiplier, shift, lora_B, lora_shift);
  convolve(&layer, one_widened_position, 0, 0, input, hidden, output, column);
}
