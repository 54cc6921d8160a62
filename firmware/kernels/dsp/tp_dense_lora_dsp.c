#include "tinypeft/tp_kernels_dsp_dense.h"
#include "tinypeft/tp_pairs.h"

#define BLOCK 4
#define RANK_MAX 32
#define SHIFT_MAX 31
#define B_MAX 128

/* Hidden values in the order in which SXTB16 widens B: of each four the even ones, then the odd ones; zeros behind. */
typedef struct {
  uint32_t words[RANK_MAX / 2];
} hidden_words;

static void arrange(const int16_t *hidden, int32_t rank, hidden_words *into) {
  int16_t four[4];
  for (int32_t r = 0; r < rank; r += 4) {
    for (int32_t i = 0; i < 4; i++) {
      four[i] = r + i < rank ? hidden[r + i] : 0;
    }
    into->words[r / 2] = tp_make_pair(four[0], four[2]);
    into->words[r / 2 + 1] = tp_make_pair(four[1], four[3]);
  }
}

/* A channel's sum of B times the hidden values, below 2^27. */
static inline int32_t sum_of(const int8_t *b, int32_t rank, const hidden_words *hidden) {
  int32_t sum = 0;
  for (int32_t r = 0; r < rank; r += 4) {
    const uint32_t four = tp_load_word_of(b, r, rank);
    sum = tp_smlad(tp_sxtb16(four), hidden->words[r / 2], sum);
    sum = tp_smlad(tp_sxtb16_ror8(four), hidden->words[r / 2 + 1], sum);
  }
  return sum;
}

/* The least shift, not to the left, with which no sum leaves the limit. */
static int32_t least_shift(const tp_dense_lora_dsp_params *params, const int16_t *hidden) {
  int32_t reach = 0, shift = 0;
  for (int32_t r = 0; r < params->rank; r++) {
    reach += B_MAX * tp_abs_s32(hidden[r]);
  }
  while (tp_round_doubled(reach, shift) >= params->limit) {
    shift++;
  }
  return shift;
}

/* The addend of any shift, within the limit. */
static TP_NOINLINE int32_t limited(int32_t sum, int32_t shift, int32_t limit) {
  return tp_within_limit(tp_round_shift_s64(sum, shift), limit);
}

/* What is added to each channel at a position; `least` see `least_shift`. */
static inline void add(const tp_dense_lora_dsp_params *params, int32_t rank, const hidden_words *hidden, int32_t least,
                       const int8_t *lora_B, const int8_t *lora_shift, int32_t *added) {
  const int32_t limit = params->limit;
  for (const int32_t *end = added + params->layer.output_c; added < end; lora_B += rank) {
    const int32_t sum = sum_of(lora_B, rank, hidden), shift = *lora_shift++;
    const int fits = shift >= least && shift <= SHIFT_MAX;
    *added++ = fits ? tp_round_doubled(sum, shift) : limited(sum, shift, limit);
  }
}

/* Of what is added to channels, what their sums start from: of each four S = 256 * high + low and low of both pairs. */
static void start(const int32_t *base, int32_t channels, int32_t *words) {
  for (int32_t c = channels; c % BLOCK != 0; c++) {
    words[c] = 0;
  }
  for (const int32_t *end = words + channels; words < end; words += BLOCK, base += BLOCK) {
    const uint32_t high0 = (uint32_t)words[0], high1 = (uint32_t)words[1];
    const uint32_t low0 = (uint32_t)words[2], low1 = (uint32_t)words[3];
    words[0] = (int32_t)((uint32_t)base[0] + (high0 << 8) + low0);
    words[1] = (int32_t)((uint32_t)base[1] + low0);
    words[2] = (int32_t)((uint32_t)base[2] + (high1 << 8) + low1);
    words[3] = (int32_t)((uint32_t)base[3] + low1);
  }
}

void tp_dense_lora_dsp_s8(const tp_dense_lora_dsp_params *params, const int8_t *input, const int16_t *hidden,
                          const int8_t *lora_B, const int8_t *lora_shift, int8_t *output, void *scratch) {
  const tp_dense_dsp_params *layer = &params->layer;
  const int32_t *const last = layer->words + layer->word_count - 1;
  int32_t *const starts = scratch;
  hidden_words words;
  for (int32_t i = 0; i < layer->positions; i++) {
    const int32_t least = least_shift(params, hidden);
    arrange(hidden, params->rank, &words);
    if (params->rank == 4) { /* the code of the most usual rank is made by itself */
      add(params, 4, &words, least, lora_B, lora_shift, starts);
    } else {
      add(params, params->rank, &words, least, lora_B, lora_shift, starts);
    }
    start(params->base, layer->output_c, starts);
    layer->dense(input, layer->words, output, last, starts);
    input += layer->input_c;
    hidden += params->rank;
    output += layer->output_c;
  }
}
