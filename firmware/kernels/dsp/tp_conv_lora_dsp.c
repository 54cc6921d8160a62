#include "tinypeft/tp_arithmetic.h"
#include "tinypeft/tp_kernels_dsp_lora.h"

#define BLOCK 4
#define PAIRS_MAX 16
/* B, times a power of two, has to fit int16: so far its shifts may go left. */
#define LEFT_MAX 8

/* An adapter and the memory for what is made of it. Where a shift goes too far left for the routine, `exact` is set. */
typedef struct {
  const tp_lora_start_dsp_params *params;
  const int8_t *lora_B, *lora_shift;
  uint32_t *table;
  int32_t *starts;
  int exact;
} adapter;

/* The channels of a block in the order of its table: high and low of the first pair, then of the second. */
static inline int32_t channel_of(int32_t block, int32_t i) { return block * BLOCK + i / 2 + (i % 2) * 2; }

/* The entries of all blocks: pairs of B, the half that rounds, the shift. */
static adapter prepare(const tp_lora_start_dsp_params *params, const int8_t *lora_B, const int8_t *lora_shift,
                       void *scratch) {
  adapter made = {params, lora_B, lora_shift, (uint32_t *)scratch + 2 * BLOCK * params->blocks, scratch, 0};
  uint32_t *entry = made.table;
  for (int32_t i = 0; i < BLOCK * params->blocks; i++) {
    const int32_t c = channel_of(i / BLOCK, i % BLOCK);
    const int there = c < params->output_c;
    const int8_t *b = lora_B + c * params->rank;
    const int32_t shift = there ? lora_shift[c] : 0;
    const int32_t times = (int32_t)1 << tp_clamp_s32(-shift, 0, LEFT_MAX);
    made.exact |= shift < -LEFT_MAX;
    for (int32_t r = 0; r < params->rank; r += 2) {
      const int32_t low = there ? b[r] * times : 0;
      const int32_t high = there && r + 1 < params->rank ? b[r + 1] * times : 0;
      *entry++ = ((uint32_t)low & 0xFFFFu) | (uint32_t)high << 16;
    }
    *entry++ = shift > 0 ? (uint32_t)1 << (shift - 1) : 0;
    *entry++ = (uint32_t)tp_max_s32(shift, 0);
  }
  return made;
}

/* The addend of channel c at one position. */
static int32_t addend(const adapter *from, const int16_t *hidden, int32_t c) {
  const tp_lora_start_dsp_params *params = from->params;
  int32_t sum = 0;
  if (c >= params->output_c) {
    return 0;
  }
  for (int32_t r = 0; r < params->rank; r++) {
    sum += from->lora_B[c * params->rank + r] * hidden[r];
  }
  const int64_t shifted = tp_round_shift_s64(sum, from->lora_shift[c]);
  return shifted >= params->limit ? params->limit - 1 : (int32_t)(shifted < -params->limit ? -params->limit : shifted);
}

/* The starts of one position, every other half block of `starts`, for shifts of any size. */
static void start_exactly(const adapter *from, const int16_t *hidden, int32_t *starts) {
  const int32_t *base = from->params->base;
  for (int32_t i = 0; i < BLOCK * from->params->blocks; i += 2) {
    const int32_t block = i / BLOCK;
    const uint32_t high = (uint32_t)addend(from, hidden, channel_of(block, i % BLOCK));
    const uint32_t low = (uint32_t)addend(from, hidden, channel_of(block, i % BLOCK + 1));
    starts[block * BLOCK + i] = (int32_t)((uint32_t)base[i] + (high << 8) + low);
    starts[block * BLOCK + i + 1] = (int32_t)((uint32_t)base[i + 1] + low);
  }
}

/* The starts of two positions, of which these are the hidden values. */
static void start(const adapter *from, const int16_t *first, const int16_t *second) {
  const tp_lora_start_dsp_params *params = from->params;
  if (from->exact) {
    start_exactly(from, first, from->starts);
    start_exactly(from, second, from->starts + BLOCK);
    return;
  }
  uint32_t words[2 * PAIRS_MAX];
  if (params->rank % 2 != 0) {
    words[params->pairs - 1] = 0;
    words[2 * params->pairs - 1] = 0;
  }
  for (int32_t position = 0; position < 2; position++) {
    int16_t *target = (int16_t *)(void *)(words + position * params->pairs);
    const int16_t *source = position == 0 ? first : second;
    for (int32_t r = 0; r < params->rank; r++) {
      target[r] = source[r];
    }
  }
  params->routine(params->base, from->table, from->starts, words, params->blocks);
}

/* What is behind the starts and the table. */
static void *rest_of(const tp_lora_start_dsp_params *params, void *scratch) {
  return (int32_t *)scratch + BLOCK * params->blocks * (2 + params->pairs + 2);
}

void tp_pointwise_lora_dsp_s8(const tp_pointwise_lora_dsp_params *params, const int8_t *input, const int16_t *hidden,
                              const int8_t *lora_B, const int8_t *lora_shift, int8_t *output, void *scratch) {
  const tp_pointwise_dsp_params *layer = &params->layer;
  const adapter from = prepare(&params->start, lora_B, lora_shift, scratch);
  void *const rest = rest_of(&params->start, scratch);
  for (int32_t p = 0; p < layer->positions; p += 2) {
    const int32_t count = tp_min_s32(layer->positions - p, 2);
    const int16_t *first = hidden + p * params->start.rank;
    start(&from, first, first + (count - 1) * params->start.rank);
    layer->dot(input + p * params->input_c, layer->words, output + p * layer->output_c, count, layer->output_c,
               layer->words + layer->word_count - 1, from.starts, rest);
  }
}

void tp_conv_lora_dsp_s8(const tp_conv_lora_dsp_params *params, const int8_t *input, const int16_t *hidden,
                         const int8_t *lora_B, const int8_t *lora_shift, int8_t *output, void *scratch) {
  const tp_conv_dsp_params *layer = &params->layer;
  const tp_window *w = &layer->window;
  const int32_t *const last = layer->words + layer->word_count - 1;
  const adapter from = prepare(&params->start, lora_B, lora_shift, scratch);
  tp_row_ring ring;
  ring.first = (int16_t *)rest_of(&params->start, scratch) + 2;
  ring.end = 0;
  for (int32_t oy = 0; oy < w->output_h; oy++) {
    tp_widen_ring_dsp(layer, input, oy, &ring);
    for (int32_t ox = 0; ox < w->output_w; ox += 2) { /* the routine moves the pointers on */
      const int32_t count = tp_min_s32(w->output_w - ox, 2);
      start(&from, hidden, hidden + (count - 1) * params->start.rank);
      layer->dot(ring.rows, layer->words, output, count, w->output_c, last, from.starts);
      hidden += count * params->start.rank;
      output += count * w->output_c;
    }
  }
}

void tp_conv_flat_lora_dsp_s8(const tp_conv_flat_lora_dsp_params *params, const int8_t *input, const int16_t *hidden,
                              const int8_t *lora_B, const int8_t *lora_shift, int8_t *output, void *scratch) {
  const tp_conv_flat_dsp_params *layer = &params->layer;
  const tp_window *w = &layer->window;
  const int32_t *const last = layer->words + layer->word_count - 1;
  const int32_t rank = params->start.rank;
  const int32_t row_size = w->output_w * w->output_c;
  const adapter from = prepare(&params->start, lora_B, lora_shift, scratch);
  tp_flat_rows held = {rest_of(&params->start, scratch), 0, 0};
  for (int32_t oy = 0; oy < w->output_h; oy += layer->together) {
    int16_t *x = tp_widen_flat_dsp(layer, input, oy, &held);
    const int both = oy + layer->together <= w->output_h;
    for (int32_t ox = 0; ox < w->output_w; ox += 3 - layer->together, x += params->advance) {
      const int16_t *h = hidden + (oy * w->output_w + ox) * rank;
      int8_t *result = output + (oy * w->output_w + ox) * w->output_c;
      if (layer->together == 1) {
        const int32_t count = tp_min_s32(w->output_w - ox, 2);
        start(&from, h, h + (count - 1) * rank);
        layer->dot(x, layer->words, result, count, w->output_c, last, from.starts);
      } else {
        start(&from, h, both ? h + w->output_w * rank : h);
        layer->dot(x, layer->words, result, 1, both ? row_size : 0, last, from.starts);
      }
    }
  }
}
