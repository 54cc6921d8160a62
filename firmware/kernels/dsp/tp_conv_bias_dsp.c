#include "tinypeft/tp_arithmetic.h"
#include "tinypeft/tp_kernels_dsp_bias.h"

#define BLOCK 4

/* By how much the bias of channel c has changed; 0 behind the last channel. */
static int32_t change(const tp_bias_start_dsp_params *params, const int32_t *bias, int32_t c) {
  if (c >= params->output_c) {
    return 0;
  }
  return tp_within_limit((int64_t)bias[c] - params->bias[c], params->limit);
}

/* What the sums of `positions` positions, one or two, start from: blocks of four words for each. */
static void start(const tp_bias_start_dsp_params *params, const int32_t *bias, int32_t positions, int32_t *starts) {
  const int32_t *base = params->base;
  for (int32_t c = 0; c < BLOCK * params->blocks; c += BLOCK) {
    for (int32_t pair = 0; pair < 2; pair++) {
      const uint32_t high = (uint32_t)change(params, bias, c + pair);
      const uint32_t low = (uint32_t)change(params, bias, c + pair + 2);
      starts[2 * pair] = (int32_t)((uint32_t)*base++ + (params->plain ? high : (high << 8) + low));
      starts[2 * pair + 1] = (int32_t)((uint32_t)*base++ + low);
    }
    for (int32_t i = 0; positions == 2 && i < BLOCK; i++) {
      starts[BLOCK + i] = starts[i];
    }
    starts += positions * BLOCK;
  }
}

void tp_pointwise_bias_dsp_s8(const tp_pointwise_bias_dsp_params *params, const int8_t *input, const int32_t *bias,
                              int8_t *output, void *scratch) {
  const tp_pointwise_dsp_params *layer = &params->layer;
  int32_t *const starts = scratch;
  start(&params->start, bias, 2, starts);
  for (int32_t p = 0; p < layer->positions; p += 2) {
    layer->dot(input + p * params->input_c, layer->words, output + p * layer->output_c,
               tp_min_s32(layer->positions - p, 2), layer->output_c, layer->words + layer->word_count - 1, starts,
               starts + 2 * BLOCK * params->start.blocks);
  }
}

void tp_conv_bias_dsp_s8(const tp_conv_bias_dsp_params *params, const int8_t *input, const int32_t *bias,
                         int8_t *output, void *scratch) {
  const tp_conv_dsp_params *layer = &params->layer;
  const tp_window *w = &layer->window;
  int32_t *const starts = scratch;
  tp_row_ring ring;
  ring.first = (int16_t *)(void *)(starts + 2 * BLOCK * params->start.blocks) + 2;
  ring.end = 0;
  start(&params->start, bias, 2, starts);
  for (int32_t oy = 0; oy < w->output_h; oy++) {
    tp_widen_ring_dsp(layer, input, oy, &ring);
    for (int32_t ox = 0; ox < w->output_w; ox += 2) { /* the routine moves the pointers on */
      const int32_t count = tp_min_s32(w->output_w - ox, 2);
      layer->dot(ring.rows, layer->words, output, count, w->output_c, layer->words + layer->word_count - 1, starts);
      output += count * w->output_c;
    }
  }
}

void tp_dense_bias_dsp_s8(const tp_dense_bias_dsp_params *params, const int8_t *input, const int32_t *bias,
                          int8_t *output, void *scratch) {
  const tp_dense_dsp_params *layer = &params->layer;
  int32_t *const starts = scratch;
  start(&params->start, bias, 1, starts);
  for (int32_t i = 0; i < layer->positions; i++) {
    layer->dense(input, layer->words, output, layer->words + layer->word_count - 1, starts);
    input += layer->input_c;
    output += layer->output_c;
  }
}
