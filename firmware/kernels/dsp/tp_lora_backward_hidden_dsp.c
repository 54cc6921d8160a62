#include "tinypeft/tp_pairs.h"
#include "tinypeft/tp_kernels.h"
#include "tinypeft/tp_kernels_dsp_backward.h"

#define COLUMNS 4
/* A shift by `down` is a product with 2^(SHARED - down) and a shift by SHARED, which all channels share. Of a shift by
 * 0, int16 holds the negative factor alone: B is then negated. */
#define SHARED 15

/* What two channels are multiplied with: their shifts, and four columns of B. */
typedef struct {
  uint32_t shifts, columns[COLUMNS];
} channel_pair;

/* The pairs of up to four columns, where channel c is shifted by most + lora_shift[c]; beyond SHARED all mantissas
 * become 0. */
static void make_pairs(const tp_lora_backward_params *params, const int8_t *lora_B, const int8_t *lora_shift,
                       int32_t most, int32_t columns, channel_pair *pair) {
  const int32_t rank = params->rank;
  for (int32_t c = 0; c < params->output_c; c += 2, lora_B += 2 * rank, pair++) {
    int32_t multiplier[2], sign[2];
    for (int32_t j = 0; j < 2; j++) {
      const int32_t down = most + lora_shift[c + j];
      sign[j] = down == 0 ? -1 : 1;
      multiplier[j] = down > SHARED ? 0 : sign[j] * ((int32_t)1 << (SHARED - down));
    }
    pair->shifts = tp_make_pair(multiplier[0], multiplier[1]);
    for (int32_t j = 0; j < COLUMNS; j++) {
      pair->columns[j] = j < columns ? tp_make_pair(lora_B[j] * sign[0], lora_B[rank + j] * sign[1]) : 0;
    }
  }
}

/* Up to four columns of the result, at all positions. The routine writes four: where fewer are asked for, beside the
 * result, a position at a time. */
static void some_columns(const tp_lora_backward_dsp_params *params, const int16_t *g, const channel_pair *pairs,
                         int32_t columns, tp_shifted_dot_block *block, int16_t *result) {
  const int32_t rank = params->lora.rank;
  block->step = rank * (int32_t)sizeof *result;
  block->positions = columns == COLUMNS ? params->lora.positions : 1;
  if (columns == COLUMNS) {
    params->routine(g, (const uint32_t *)pairs, result, block);
    return;
  }
  for (int32_t p = 0; p < params->lora.positions; p++) {
    int16_t four[COLUMNS];
    params->routine(g + p * params->lora.output_c, (const uint32_t *)pairs, four, block);
    for (int32_t j = 0; j < columns; j++) {
      result[p * rank + j] = four[j];
    }
  }
}

void tp_lora_backward_hidden_dsp_s16(const tp_lora_backward_dsp_params *params, const tp_bfp *d_acc,
                                     const int8_t *lora_B, const int8_t *lora_shift, const int8_t *hidden_shift,
                                     const int32_t *l1, tp_bfp *d_hidden, void *scratch) {
  const int32_t channels = params->lora.output_c;
  const int32_t rank = params->lora.rank;
  int32_t shift_min = lora_shift[0];
  for (int32_t c = 1; c < channels; c++) {
    shift_min = tp_min_s32(shift_min, lora_shift[c]);
  }
  const int32_t narrow = tp_accumulator_shift(d_acc->peak, l1[1]);
  const int32_t shift = tp_narrow_shift(tp_round_shift_s64(d_acc->peak, narrow) * l1[1], TP_BFP_MAX);
  tp_shifted_dot_block block = {tp_half_of(shift), shift, 0, 0, 0, 0};
  for (int32_t r = 0; r < rank; r += COLUMNS) {
    const int32_t columns = tp_min_s32(rank - r, COLUMNS);
    make_pairs(&params->lora, lora_B + r, lora_shift, narrow - shift_min, columns, scratch);
    some_columns(params, d_acc->mantissa, scratch, columns, &block, d_hidden->mantissa + r);
  }
  d_hidden->exponent = d_acc->exponent + narrow - shift_min - hidden_shift[0] + shift;
  d_hidden->peak = tp_peak_of_pairs(block.largest, block.smallest);
}
