#include "tinypeft/tp_pairs.h"
#include "tinypeft/tp_kernels.h"
#include "tinypeft/tp_kernels_dsp_backward.h"

/* By how much a product with a power of two below 2^31 shifts at least when its high word is what counts; by how much
 * weights of 8 bits may be shifted to the left. */
#define LEAST_SHIFT 2
#define MOST_UP 8

/* Mantissas, each rounded by `shift` bits. */
static TP_NOINLINE void round_pairs(const int16_t *from, int32_t count, int32_t shift, int16_t *to) {
  const int32_t half = tp_half_of(shift);
  for (const int16_t *end = from + count; from < end; from += 2, to += 2) {
    const uint32_t pair = tp_load_word(from);
    tp_store_word(to, tp_make_pair((tp_low_half(pair) + half) >> shift, (tp_high_half(pair) + half) >> shift));
  }
}

static inline uint32_t load_two(const int8_t *weights) {
  uint16_t two;
  __builtin_memcpy(&two, weights, sizeof two);
  return two;
}

static inline uint32_t shifted_up(uint32_t pair, int32_t up) {
  return tp_make_pair(tp_low_half(pair) * (1 << up), tp_high_half(pair) * (1 << up));
}

/* The rows of two channels, shifted to the left by `up`: of either all pairs. */
static void make_rows(const int8_t *filter, int32_t rank, int32_t channels, int32_t up, uint32_t *rows) {
  for (int32_t c = 0; c < rank; c += 2, filter += 2 * channels, rows++) {
    const uint32_t weights = load_two(filter) | load_two(filter + channels) << 16;
    rows[0] = shifted_up(tp_sxtb16(weights), up);
    rows[rank / 2] = shifted_up(tp_sxtb16_ror8(weights), up);
  }
}

void tp_conv_backward_low_rank_dsp_s16(const tp_conv_backward_low_rank_dsp_params *params, const tp_bfp *d_acc,
                                       const int8_t *filter, const int32_t *l1, const tp_bfp *addend, tp_bfp *d_input,
                                       void *scratch) {
  const tp_window *w = &params->conv.window;
  const int32_t norm = l1 != NULL ? l1[0] : params->conv.l1;
  const int64_t bound = (int64_t)d_acc->peak * norm;
  const int32_t common = tp_common_exponent(bound, d_acc->exponent, addend->peak, addend->exponent, TP_BFP_MAX);
  const int32_t shift = bound != 0 ? common - d_acc->exponent : LEAST_SHIFT;
  const int32_t addend_shift = addend->peak != 0 ? common - addend->exponent : 0;
  const int32_t up = tp_max_s32(LEAST_SHIFT - shift, 0);
  if (tp_accumulator_shift(d_acc->peak, norm) != 0 || up > MOST_UP) {
    tp_conv_backward_input_s16(&params->conv, d_acc, filter, l1, addend, d_input, scratch);
    return;
  }

  const int32_t channels = w->input_c;
  if (addend_shift > 0 || addend->mantissa != d_input->mantissa) {
    const int32_t size = w->input_h * w->input_w * channels;
    round_pairs(addend->mantissa, size, tp_min_s32(tp_max_s32(addend_shift, 0), 30), d_input->mantissa);
  }
  tp_low_rank_block block = {0, 1 << tp_max_s32(-addend_shift, 0), 0, 0};
  block.scale = shift + up > 32 ? 0 : (int32_t)((uint32_t)1 << (32 - shift - up));
  for (int32_t k = 0; k < channels; k += 2) {
    uint32_t rows[4];
    make_rows(filter + k, w->output_c, channels, up, rows);
    params->routine(d_acc->mantissa, d_input->mantissa + k, rows, &block);
  }
  d_input->exponent = common;
  d_input->peak = tp_peak_of_pairs(block.largest, block.smallest);
}
