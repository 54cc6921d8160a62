#include "tinypeft/tp_arithmetic.h"
#include "tinypeft/tp_lora_table_dsp.h"

/* Pairs of positions, the second of which lies `apart` positions behind the first, and `step` from pair to pair. */
static tp_lora_positions pairs_of(const tp_lora_table *from, const int16_t *hidden, int32_t apart, int32_t step) {
  const int32_t size = from->params->rank * (int32_t)sizeof *hidden;
  const tp_lora_positions at = {hidden, apart * size, step * size, from->shift, from->words, {0}};
  return at;
}

/* Outputs of the channels that lie apart to their places. */
static void put_apart(const tp_lora_table *from, const int8_t *outputs, int8_t *output) {
  const int16_t *channel = from->params->alone->others;
  for (const int8_t *end = outputs + from->params->computed_c; outputs < end;) {
    output[*channel++] = *outputs++;
  }
}

/* What the routine is given beside what it changes. `next`: bytes from the inputs of a pair of positions to those of
 * the next, 0 where it moves them on itself; `below`: positions count pairs, whose second ones lie `apart` bytes on. */
typedef struct {
  const int32_t *words, *last;
  int32_t next, apart;
  int below;
  void *scratch;
} layer_of;

/* Outputs of `positions`, but for those of lone channels. */
static void compute(const tp_lora_table *from, const layer_of *layer, const void *x, int8_t *output, int32_t positions,
                    tp_lora_positions at) {
  const tp_lora_dsp_params *params = from->params;
  const int32_t channels = params->output_c, step = layer->below ? 1 : 2;
  if (params->alone == NULL) {
    params->dot(x, layer->words, output, positions, layer->apart, layer->last, from->table, layer->scratch, at);
    return;
  }
  for (int32_t p = 0; p < positions; p += step) {
    const int32_t count = tp_min_s32(positions - p, step);
    const int both = layer->below ? layer->apart != 0 : count == 2;
    params->dot(x, layer->words, from->outputs, count, both ? params->computed_c : 0, layer->last, from->table,
                layer->scratch, at);
    put_apart(from, from->outputs, output);
    if (both) {
      put_apart(from, from->outputs + params->computed_c, output + layer->apart);
    }
    x = (const int8_t *)x + layer->next;
    at.hidden += at.step / (int32_t)sizeof *at.hidden;
    output += step * channels;
  }
}

void tp_pointwise_lora_dsp_s8(const tp_pointwise_lora_dsp_params *params, const int8_t *input, const int16_t *hidden,
                              const int8_t *lora_B, const int8_t *lora_shift, int8_t *output, void *scratch) {
  const tp_pointwise_dsp_params *pointwise = &params->layer;
  const int32_t rank = params->start.rank, positions = pointwise->positions, channels = pointwise->output_c;
  const tp_lora_table from = tp_make_lora_table(&params->start, hidden, positions * rank, lora_B, lora_shift, scratch);
  const int32_t *const last = pointwise->words + pointwise->word_count - 1;
  const layer_of layer = {pointwise->words, last, 2 * params->input_c, channels, 0, from.rest};
  if (!from.exact) {
    compute(&from, &layer, input, output, positions, pairs_of(&from, hidden, 1, 2));
  }
  for (int32_t p = 0; from.exact && p < positions; p++) {
    compute(&from, &layer, input + p * params->input_c, output + p * channels, 1,
            tp_put_addends(&from, hidden + p * rank, 0));
  }
  tp_put_lone_channels(&from, hidden, positions, output);
}

void tp_conv_lora_dsp_s8(const tp_conv_lora_dsp_params *params, const int8_t *input, const int16_t *hidden,
                         const int8_t *lora_B, const int8_t *lora_shift, int8_t *output, void *scratch) {
  const tp_conv_dsp_params *conv = &params->layer;
  const tp_window *w = &conv->window;
  const int32_t rank = params->start.rank, positions = w->output_h * w->output_w;
  const tp_lora_table from = tp_make_lora_table(&params->start, hidden, positions * rank, lora_B, lora_shift, scratch);
  const layer_of layer = {conv->words, conv->words + conv->word_count - 1, 0, w->output_c, 0, NULL};
  tp_row_ring ring;
  ring.first = (int16_t *)from.rest + 2;
  ring.end = 0;
  for (int32_t oy = 0; oy < w->output_h; oy++) {
    const int16_t *h = hidden + oy * w->output_w * rank;
    int8_t *row = output + oy * w->output_w * w->output_c;
    tp_widen_ring_dsp(conv, input, oy, &ring);
    for (int32_t ox = 0; from.exact && ox < w->output_w; ox++) {
      for (int32_t i = 0; i < w->kernel_h; i++) { /* the routine moves the pointers on by two */
        ring.rows[i] += ox > 0 ? -w->stride_w * w->input_c : 0;
      }
      compute(&from, &layer, ring.rows, row + ox * w->output_c, 1, tp_put_addends(&from, h + ox * rank, 0));
    }
    if (!from.exact) {
      compute(&from, &layer, ring.rows, row, w->output_w, pairs_of(&from, h, 1, 2));
    }
  }
  tp_put_lone_channels(&from, hidden, positions, output);
}

void tp_conv_flat_lora_dsp_s8(const tp_conv_flat_lora_dsp_params *params, const int8_t *input, const int16_t *hidden,
                              const int8_t *lora_B, const int8_t *lora_shift, int8_t *output, void *scratch) {
  const tp_conv_flat_dsp_params *conv = &params->layer;
  const tp_window *w = &conv->window;
  const int32_t rank = params->start.rank, positions = w->output_h * w->output_w;
  const int32_t distance = w->stride_w * w->input_c, row_size = w->output_w * w->output_c;
  const int below = conv->together == 2;
  const tp_lora_table from = tp_make_lora_table(&params->start, hidden, positions * rank, lora_B, lora_shift, scratch);
  layer_of layer = {conv->words, conv->words + conv->word_count - 1, (3 - conv->together) * distance * 2, w->output_c,
                    below, NULL};
  tp_flat_rows held = {from.rest, 0, 0};
  for (int32_t oy = 0; oy < w->output_h; oy += conv->together) {
    const int16_t *const x = tp_widen_flat_dsp(conv, input, oy, &held);
    const int16_t *h = hidden + oy * w->output_w * rank;
    int8_t *row = output + oy * row_size;
    const int32_t rows = tp_min_s32(conv->together, w->output_h - oy);
    for (int32_t p = rows * w->output_w - 1; from.exact && p >= 0; p--) { /* second rows spoil first ones */
      const int second = p >= w->output_w;
      const int32_t ox = second ? p - w->output_w : p;
      layer.apart = second ? row_size : 0;
      compute(&from, &layer, x + ox * distance, row + ox * w->output_c, 1, tp_put_addends(&from, h + p * rank, second));
    }
    if (!from.exact) {
      layer.apart = !below ? w->output_c : rows == 2 ? row_size : 0;
      compute(&from, &layer, x, row, w->output_w,
              below ? pairs_of(&from, h, rows == 2 ? w->output_w : 0, 1) : pairs_of(&from, h, 1, 2));
    }
  }
  tp_put_lone_channels(&from, hidden, positions, output);
}
