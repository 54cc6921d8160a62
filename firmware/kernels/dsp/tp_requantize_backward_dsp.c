#include "tinypeft/tp_kernels.h"
#include "tinypeft/tp_kernels_dsp_backward.h"
#include "tinypeft/tp_pairs.h"

/* What the routine is given. Where no multiplier scales the channels, nothing is shifted. */
static tp_scale_block begin(const tp_requantize_backward_dsp_params *params, const tp_bfp *d_output) {
  const tp_requantize_backward_params *r = &params->requantize;
  tp_scale_block block = {.multiplier = r->multiplier, .positions = r->positions, .bytes = 2 * r->channels};
  block.first = ((uint32_t)(r->activation_min + 1) & 0xFFu) * 0x01010101u;
  block.limit = (uint32_t)tp_max_s32(r->activation_max - r->activation_min - 1, 0) * 0x01000100u;
  if (r->multiplier != NULL) {
    int32_t largest = 0;
    for (int32_t c = 0; c < r->channels; c++) {
      largest = tp_max_s32(largest, r->multiplier[c]);
    }
    block.shift = tp_narrow_shift((int64_t)d_output->peak * largest, TP_BFP_MAX);
    block.half = tp_half_of(block.shift);
    block.steps = r->channels / params->loop * 256;
  }
  return block;
}

static void finish(const tp_scale_block *block, const tp_requantize_backward_params *params, const tp_bfp *d_output,
                   tp_bfp *d_acc) {
  d_acc->exponent = d_output->exponent + block->shift + (params->multiplier != NULL ? params->exponent : 0);
  d_acc->peak = tp_peak_of_square(block->square);
}

static inline void put(uint32_t a, uint32_t b, int16_t *result, int32_t *square) {
  tp_store_word(result, a);
  tp_store_word(result + 2, b);
  tp_raise_square(square, a, b);
}

/* `count` mantissas as they are where an output passes. */
static TP_NOINLINE void pass_outputs(const int16_t *g, int32_t count, const int8_t *output, int16_t *result,
                                     tp_scale_block *block) {
  const uint32_t first = block->first, limit = block->limit;
  int32_t square = 0;
  for (const int16_t *end = g + count; g < end; g += 4, result += 4, output += 4) {
    const uint32_t above = tp_usub8(tp_load_word(output), first);
    const uint32_t a = tp_where_below_u16x2(tp_load_word(g), tp_pkhbt(above << 8, above), limit);
    const uint32_t b = tp_where_below_u16x2(tp_load_word(g + 2), tp_pkhtb_asr8(above, above), limit);
    put(a, b, result, &square);
  }
  block->square = square;
}

/* Ones in the halves whose bits, bit 0 and bit 16, are 1. */
static inline uint32_t ones(uint32_t bits) {
  const uint32_t one = bits & 0x00010001u;
  return (one << 16) - one;
}

/* The same where a mask tells it. */
static TP_NOINLINE void pass_mask(const int16_t *g, int32_t count, const uint8_t *mask, int16_t *result,
                                  tp_scale_block *block) {
  int32_t square = 0;
  for (const int16_t *end = g + count; g < end; g += 8, result += 8) {
    const uint32_t bits = *mask | (uint32_t)*mask << 15;
    mask++;
    put(tp_load_word(g) & ones(bits), tp_load_word(g + 2) & ones(bits >> 2), result, &square);
    put(tp_load_word(g + 4) & ones(bits >> 4), tp_load_word(g + 6) & ones(bits >> 6), result + 4, &square);
  }
  block->square = square;
}

void tp_requantize_backward_dsp_s16(const tp_requantize_backward_dsp_params *params, const tp_bfp *d_output,
                                    const int8_t *output, tp_bfp *d_acc) {
  const tp_requantize_backward_params *r = &params->requantize;
  tp_scale_block block = begin(params, d_output);
  if (r->multiplier != NULL) {
    params->routine(d_output->mantissa, output, d_acc->mantissa, &block);
  } else {
    pass_outputs(d_output->mantissa, r->positions * r->channels, output, d_acc->mantissa, &block);
  }
  finish(&block, r, d_output, d_acc);
}

void tp_requantize_backward_mask_dsp_s16(const tp_requantize_backward_dsp_params *params, const tp_bfp *d_output,
                                         const uint8_t *mask, tp_bfp *d_acc) {
  const tp_requantize_backward_params *r = &params->requantize;
  tp_scale_block block = begin(params, d_output);
  if (r->multiplier != NULL) {
    params->routine(d_output->mantissa, mask, d_acc->mantissa, &block);
  } else {
    pass_mask(d_output->mantissa, r->positions * r->channels, mask, d_acc->mantissa, &block);
  }
  finish(&block, r, d_output, d_acc);
}
