#include "tinypeft/tp_pairs.h"
#include "tinypeft/tp_kernels.h"
#include "tinypeft/tp_kernels_dsp_backward.h"

#define COLUMNS 4
/* A shift by `down` is a product with 2^(SHARED - down) and a shift by SHARED, which all channels share. Of a shift by
 * 0, int16 holds the negative factor alone: B is then negated. */
#define SHARED 15
#define HALF (1 << (SHARED - 1))

/* What two channels are multiplied with: their shifts, and four columns of B. */
typedef struct {
  uint32_t shifts, columns[COLUMNS];
} channel_pair;

/* acc[j] = sum over channels of their mantissas, each shifted, times column j of B. */
static TP_NOINLINE void shifted_dot(const int16_t *g, int32_t channels, const channel_pair *pair,
                                    int32_t acc[COLUMNS]) {
  int32_t a0 = 0, a1 = 0, a2 = 0, a3 = 0, half = HALF;
  __asm__("" : "+r"(half)); /* a register, not a constant made again each time */
  for (const int16_t *end = g + channels; g < end; pair++) {
    const uint32_t mantissas = tp_load_word(g);
    g += 2;
    if (mantissas != 0) { /* clamped outputs have none */
      const uint32_t shifts = pair->shifts;
      const int32_t high = tp_smlatt(mantissas, shifts, half);
      const int32_t low = tp_smlabb(mantissas, shifts, half);
      const uint32_t shifted = tp_pkhtb_asr15((uint32_t)high << (16 - SHARED), (uint32_t)low);
      a0 = tp_smlad(shifted, pair->columns[0], a0);
      a1 = tp_smlad(shifted, pair->columns[1], a1);
      a2 = tp_smlad(shifted, pair->columns[2], a2);
      a3 = tp_smlad(shifted, pair->columns[3], a3);
    }
  }
  acc[0] = a0;
  acc[1] = a1;
  acc[2] = a2;
  acc[3] = a3;
}

/* The pairs of `shifted_dot` of up to four columns, where channel c is shifted by most + lora_shift[c]; beyond SHARED
 * all mantissas become 0. */
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

/* Up to four columns of the result, at all positions; returns its peak. */
static int32_t some_columns(const tp_lora_backward_params *params, const int16_t *g, const int8_t *lora_B,
                            const int8_t *lora_shift, int32_t most, int32_t columns, int32_t shift,
                            int16_t *result, channel_pair *pairs) {
  int32_t peak = 0;
  make_pairs(params, lora_B, lora_shift, most, columns, pairs);
  for (int32_t p = 0; p < params->positions; p++) {
    int32_t acc[COLUMNS];
    shifted_dot(g, params->output_c, pairs, acc);
    for (int32_t j = 0; j < columns; j++) {
      const int32_t value = tp_round_shift_s32(acc[j], shift);
      peak = tp_max_s32(peak, tp_abs_s32(value));
      result[j] = (int16_t)value;
    }
    g += params->output_c;
    result += params->rank;
  }
  return peak;
}

void tp_lora_backward_hidden_dsp_s16(const tp_lora_backward_params *params, const tp_bfp *d_acc, const int8_t *lora_B,
                                     const int8_t *lora_shift, const int8_t *hidden_shift, const int32_t *l1,
                                     tp_bfp *d_hidden, void *scratch) {
  const int32_t channels = params->output_c;
  const int32_t rank = params->rank;
  int32_t shift_min = lora_shift[0];
  for (int32_t c = 1; c < channels; c++) {
    shift_min = tp_min_s32(shift_min, lora_shift[c]);
  }
  const int32_t narrow = tp_accumulator_shift(d_acc->peak, l1[1]);
  const int32_t shift = tp_narrow_shift(tp_round_shift_s64(d_acc->peak, narrow) * l1[1], TP_BFP_MAX);
  int32_t peak = 0;
  for (int32_t r = 0; r < rank; r += COLUMNS) {
    const int32_t largest = some_columns(params, d_acc->mantissa, lora_B + r, lora_shift, narrow - shift_min,
                                         tp_min_s32(rank - r, COLUMNS), shift, d_hidden->mantissa + r, scratch);
    peak = tp_max_s32(peak, largest);
  }
  d_hidden->exponent = d_acc->exponent + narrow - shift_min - hidden_shift[0] + shift;
  d_hidden->peak = peak;
}
