#include "tinypeft/tp_pairs.h"
#include "tinypeft/tp_kernels.h"
#include "tinypeft/tp_kernels_dsp_backward.h"

#define COLUMNS 4

/* sum[j] = sum over positions of g[p*stride] * hidden[p*rank + j] of four columns. */
static inline void correlate(const int16_t *g, int32_t stride, const int16_t *hidden, int32_t rank,
                                  int32_t positions, int64_t sum[COLUMNS]) {
  uint32_t l0 = 0, l1 = 0, l2 = 0, l3 = 0;
  int32_t h0 = 0, h1 = 0, h2 = 0, h3 = 0;
  for (; positions > 0; positions--) {
    const int32_t mantissa = *g;
    if (mantissa != 0) { /* clamped outputs have none */
      const uint32_t first = tp_load_word(hidden), second = tp_load_word(hidden + 2);
      tp_smlalbb(&l0, &h0, mantissa, first);
      tp_smlalbt(&l1, &h1, mantissa, first);
      tp_smlalbb(&l2, &h2, mantissa, second);
      tp_smlalbt(&l3, &h3, mantissa, second);
    }
    g += stride;
    hidden += rank;
  }
  sum[0] = (int64_t)((uint64_t)(uint32_t)h0 << 32 | l0);
  sum[1] = (int64_t)((uint64_t)(uint32_t)h1 << 32 | l1);
  sum[2] = (int64_t)((uint64_t)(uint32_t)h2 << 32 | l2);
  sum[3] = (int64_t)((uint64_t)(uint32_t)h3 << 32 | l3);
}

/* The same of a rank that is known, which saves a register. */
static TP_NOINLINE void correlate_rank_4(const int16_t *g, int32_t stride, const int16_t *hidden, int32_t positions,
                                         int64_t sum[COLUMNS]) {
  correlate(g, stride, hidden, COLUMNS, positions, sum);
}

static TP_NOINLINE void correlate_any(const int16_t *g, int32_t stride, const int16_t *hidden, int32_t rank,
                                      int32_t positions, int64_t sum[COLUMNS]) {
  correlate(g, stride, hidden, rank, positions, sum);
}

int tp_lora_gradient_b_dsp_s32(const void *params, const tp_bfp *d_output, const void *source, int32_t row,
                               int32_t shift, int32_t *gradient) {
  const tp_lora_backward_params *p = params;
  const int16_t *hidden = source;
  int32_t any = 0;
  const int64_t half = shift > 0 ? (int64_t)1 << (shift - 1) : 0;
  for (int32_t r = 0; r < p->rank; r += COLUMNS) {
    int64_t sum[COLUMNS];
    if (p->rank == COLUMNS) {
      correlate_rank_4(d_output->mantissa + row, p->output_c, hidden, p->positions, sum);
    } else {
      correlate_any(d_output->mantissa + row, p->output_c, hidden + r, p->rank, p->positions, sum);
    }
    for (int32_t j = 0; j < COLUMNS; j++) {
      gradient[r + j] = (int32_t)((sum[j] + half) >> shift);
      any |= gradient[r + j];
    }
  }
  return any != 0;
}

/* Sums of four channels, in registers. */
typedef struct {
  int32_t s0, s1, s2, s3;
} four_sums;

/* `sums` plus the mantissas of two positions times their inputs, of which a and b hold four channels each. */
static inline four_sums add_pair(four_sums sums, uint32_t mantissas, uint32_t a, uint32_t b) {
  const uint32_t a_even = tp_sxtb16(a), b_even = tp_sxtb16(b);
  sums.s0 = tp_smlad(mantissas, tp_pkhbt(a_even, b_even), sums.s0);
  sums.s2 = tp_smlad(mantissas, tp_pkhtb(b_even, a_even), sums.s2);
  const uint32_t a_odd = tp_sxtb16_ror8(a), b_odd = tp_sxtb16_ror8(b);
  sums.s1 = tp_smlad(mantissas, tp_pkhbt(a_odd, b_odd), sums.s1);
  sums.s3 = tp_smlad(mantissas, tp_pkhtb(b_odd, a_odd), sums.s3);
  return sums;
}

static inline void put_sums(four_sums sums, int32_t sum[COLUMNS]) {
  sum[0] = sums.s0;
  sum[1] = sums.s1;
  sum[2] = sums.s2;
  sum[3] = sums.s3;
}

/* sum[j] += sum over pairs of positions of their mantissas times input[p*channels + j], of four channels. */
static TP_NOINLINE void correlate_s8(const uint32_t *mantissas, int32_t count, const int8_t *input, int32_t channels,
                                     int32_t sum[COLUMNS]) {
  four_sums s = {sum[0], sum[1], sum[2], sum[3]};
  for (const uint32_t *end = mantissas + count; mantissas < end;) {
    s = add_pair(s, *mantissas++, tp_load_word(input), tp_load_word(input + channels));
    input += 2 * channels;
  }
  put_sums(s, sum);
}

/* How many pairs of positions are gathered together. */
#define PAIRS 32

int tp_pointwise_gradient_dsp_s32(const void *params, const tp_bfp *d_output, const void *source, int32_t row,
                                  int32_t shift, int32_t *gradient) {
  const tp_filter_gradient_params *p = params;
  const tp_window *w = &p->window;
  const int32_t channels = w->input_c;
  const int16_t *g = d_output->mantissa + row;
  const int8_t *input = source;
  int32_t offset = 0, any = 0;
  (void)shift;
  memset(gradient, 0, (size_t)channels * sizeof *gradient);
  for (int32_t left = w->output_h * w->output_w; left > 0; left -= 2 * PAIRS) {
    uint32_t mantissas[PAIRS];
    const int32_t pairs = tp_min_s32(left / 2, PAIRS);
    for (int32_t i = 0; i < pairs; i++, g += 2 * w->output_c) {
      mantissas[i] = tp_make_pair(g[0], g[w->output_c]);
      offset = tp_smlad(mantissas[i], 0x00010001u, offset);
    }
    for (int32_t k = 0; k < channels; k += COLUMNS) {
      correlate_s8(mantissas, pairs, input + k, channels, gradient + k);
    }
    input += 2 * pairs * channels;
    if (left < 2 * PAIRS && left % 2 != 0) { /* the last position is alone */
      const int32_t mantissa = *g;
      offset += mantissa;
      for (int32_t k = 0; k < channels; k++) {
        gradient[k] += mantissa * input[k];
      }
    }
  }
  offset *= p->input_offset;
  for (int32_t k = 0; k < channels; k++) {
    gradient[k] += offset;
    any |= gradient[k];
  }
  return any != 0;
}

/* Rows of positions and what a tap meets there. */
typedef struct {
  int32_t rows, pairs;          /* of mantissas */
  int32_t distance, row_distance; /* between inputs of positions, and of rows of them */
} grid;

/* sum[j] = sum over positions of their mantissas times the inputs j < 4 at x. */
static TP_NOINLINE void correlate_grid(const grid *over, const uint32_t *mantissas, const int8_t *x,
                                       int32_t sum[COLUMNS]) {
  four_sums s = {0, 0, 0, 0};
  const int32_t distance = over->distance;
  const int32_t skip = over->row_distance - 2 * over->pairs * distance;
  for (int32_t row = over->rows; row > 0; row--, x += skip) {
    for (const uint32_t *end = mantissas + over->pairs; mantissas < end; x += 2 * distance) {
      s = add_pair(s, *mantissas++, tp_load_word(x), tp_load_word(x + distance));
    }
  }
  put_sums(s, sum);
}

int tp_window_gradient_dsp_s32(const void *params, const tp_bfp *d_output, const void *source, int32_t row,
                               int32_t shift, int32_t *gradient) {
  const tp_window_gradient_dsp_params *p = params;
  const tp_window *w = &p->filter.window;
  const int32_t line = w->kernel_w * w->input_c;
  const int32_t count = (w->output_h - 1) * w->stride_h + (w->kernel_h - 1) * w->dilation_h + 1;
  int8_t *const image = (int8_t *)(gradient + w->kernel_h * line);
  uint32_t *const mantissas = (uint32_t *)(void *)(image + count * p->pitch);
  const grid over = {w->output_h, (w->output_w + 1) / 2, w->stride_w * w->input_c, w->stride_h * p->pitch};
  (void)shift;
  for (int32_t y = 0; y < count; y++) {
    tp_padded_row_dsp(w, source, y - w->pad_top, -p->filter.input_offset, p->pitch, image + y * p->pitch);
  }
  const int16_t *g = d_output->mantissa + row;
  uint32_t *pair = mantissas;
  int32_t offset = 0, any = 0;
  for (int32_t oy = 0; oy < w->output_h; oy++) {
    for (int32_t ox = 0; ox < w->output_w; ox += 2, pair++) {
      const int both = ox + 1 < w->output_w;
      *pair = tp_make_pair(g[0], both ? g[w->output_c] : 0);
      offset = tp_smlad(*pair, 0x00010001u, offset);
      g += both ? 2 * w->output_c : w->output_c;
    }
  }
  offset *= p->filter.input_offset;
  for (int32_t i = 0; i < w->kernel_h; i++) {
    for (int32_t k = 0; k < line; k += COLUMNS) {
      int32_t sum[COLUMNS];
      correlate_grid(&over, mantissas, image + i * w->dilation_h * p->pitch + k, sum);
      for (int32_t j = 0; j < COLUMNS && k + j < line; j++) {
        *gradient = sum[j] + offset;
        any |= *gradient++;
      }
    }
  }
  return any != 0;
}
