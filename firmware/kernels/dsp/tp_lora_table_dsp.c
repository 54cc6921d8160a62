#include "tinypeft/tp_lora_add.h"
#include "tinypeft/tp_lora_table_dsp.h"
#include "tinypeft/tp_pairs.h"

#define BLOCK 4
#define RANK_MAX 32
/* The highest rank whose hidden values stay in registers. */
#define IN_REGISTERS 4
/* A factor of 2^(32 - shift) fits int32 from this shift on; B, times what is missing to it, has to fit int16. */
#define SHIFT_MIN 2
#define LEFT_MAX 8
/* Of a rank of 1, how far left int16 can go and, of B, 8 bits. */
#define HIDDEN_LEFT_MAX 16
#define B_LEFT_MAX 24
#define B_MAX 128

/* The channel that the routine computes as its c-th. */
static inline int32_t computed(const tp_lora_dsp_params *params, int32_t c) {
  return params->alone != NULL ? params->alone->others[c] : c;
}

/* The channel of a block's entry i. */
static inline int32_t channel_of(int32_t i) { return i / 2 + (i % 2 == 0 ? 2 : 0); }

/* Words of a channel in the table. */
static inline int32_t words_of(int32_t rank) {
  return rank == 1 ? 2 : (rank + 1) / 2 + (rank <= IN_REGISTERS ? 2 : 1);
}

/* The least shift for sums up to `reach`, which is below 2^28. */
static int32_t least_shift(const tp_lora_dsp_params *params, int32_t reach) {
  int32_t shift = SHIFT_MIN - LEFT_MAX;
  while (shift < SHIFT_MIN && ((int64_t)reach << (SHIFT_MIN - shift)) > INT32_MAX) {
    shift++;
  }
  while (tp_round_shift_s64(reach, shift) >= params->limit) {
    shift++;
  }
  return shift;
}

/* How far left hidden values go for a rank of 1: so far that no channel's B has to go right. */
static int32_t hidden_shift(const tp_lora_table *from) {
  int32_t shift = 32 - HIDDEN_LEFT_MAX;
  for (int32_t i = 0; i < from->params->computed_c; i++) {
    const int32_t c = computed(from->params, i);
    shift = tp_max_s32(shift, from->lora_B[c] != 0 ? from->lora_shift[c] : 0);
  }
  return tp_max_s32(32 - shift, 0);
}

/* B of channel c, for a rank of 1; whether it fits. */
static inline int put_one(const tp_lora_table *from, int32_t c, int32_t *entry) {
  const int32_t b = from->lora_B[c], left = 32 - from->lora_shift[c] - from->shift;
  const int there = left >= 0 && left <= B_LEFT_MAX && from->lora_shift[c] >= from->least;
  *entry = b != 0 && there ? (int32_t)((uint32_t)b << left) : 0;
  return b == 0 || there;
}

/* Both halves of a pair, which have room for it, `left` bits up. */
static inline int32_t up(uint32_t pair, int32_t left) {
  return (int32_t)(pair << left & ~((0x10000u << left) - 0x10000u));
}

/* Pairs of B of channel c, `step` words apart, and the factor; whether they fit. */
static inline int put_pairs(const tp_lora_table *from, int32_t rank, int32_t c, int32_t step, int32_t *pairs,
                            int32_t *factor) {
  const int8_t *b = from->lora_B + c * rank;
  const int32_t shift = from->lora_shift[c];
  const int32_t left = tp_clamp_s32(SHIFT_MIN - shift, 0, LEFT_MAX);
  int32_t r = 0;
  for (; r + 4 <= rank; r += 4, pairs += 2 * step) {
    const uint32_t four = tp_load_word(b + r);
    const uint32_t even = tp_sxtb16(four), odd = tp_sxtb16_ror8(four);
    pairs[0] = up(tp_pkhbt(even, odd), left);
    pairs[step] = up(tp_pkhtb(odd, even), left);
  }
  for (; r < rank; r += 2, pairs += step) {
    *pairs = up(tp_make_pair(b[r], r + 1 < rank ? b[r + 1] : 0), left);
  }
  *factor = shift + left <= 32 ? (int32_t)(1u << (32 - shift - left)) : 0;
  return shift >= from->least;
}

/* Entry i of a block, of channel c; whether it fits. */
static inline int put(const tp_lora_table *from, int32_t rank, int32_t c, int32_t i, int32_t *block) {
  const int32_t words = words_of(rank);
  if (rank == 1) {
    return put_one(from, c, block + i * words);
  }
  if (rank <= IN_REGISTERS) {
    return put_pairs(from, rank, c, 1, block + i * words, block + (i + 1) * words - 2);
  }
  return put_pairs(from, rank, c, BLOCK, block + i, block + BLOCK * (words - 1) + i);
}

/* What sums of the block from channel `first` on start from, where the table holds it. */
static inline void put_starts(const tp_lora_table *from, int32_t rank, int32_t first, int32_t *block) {
  const int32_t words = words_of(rank);
  for (int32_t i = 0; rank <= IN_REGISTERS && i < BLOCK; i++) {
    block[(i + 1) * words - 1] = from->params->base[first + i];
  }
}

/* The output of the n-th lone channel for an accumulator. */
static int8_t lone_output(const tp_lone_channels *alone, int32_t n, int32_t acc) {
  const int32_t value = tp_requantize(acc, alone->multiplier[n], alone->shift[n]) + alone->output_offset;
  return (int8_t)tp_clamp_s32(value, alone->activation_min, alone->activation_max);
}

/* Its outputs at `count` positions, `step` apart: mostly no addend changes them. */
static void put_lone_channel(const tp_lora_table *from, int32_t n, const int16_t *hidden, int32_t count, int8_t *output,
                             int32_t step) {
  const tp_lone_channels *alone = from->params->alone;
  const int32_t rank = from->params->rank, c = alone->channel[n], bias = alone->bias[n];
  const tp_lora lora = {from->lora_B, from->lora_shift, rank, 1};
  int32_t total = 0;
  for (int32_t r = 0; r < rank; r++) {
    total += tp_abs_s32(from->lora_B[c * rank + r]);
  }
  const int64_t reach = tp_round_shift_s64((int64_t)total * from->peak, from->lora_shift[c]);
  const int64_t room = (int64_t)INT32_MAX - tp_abs_s32(bias);
  if (reach < room && lone_output(alone, n, bias - (int32_t)reach) == lone_output(alone, n, bias + (int32_t)reach)) {
    const int8_t value = lone_output(alone, n, bias);
    for (; count > 0; count--, output += step) {
      *output = value;
    }
    return;
  }
  for (; count > 0; count--, hidden += rank, output += step) {
    int32_t acc = bias;
    tp_lora_add(&lora, c, 1, hidden, &acc);
    *output = lone_output(alone, n, acc);
  }
}

void tp_put_lone_channels(const tp_lora_table *from, const int16_t *hidden, int32_t count, int8_t *output) {
  const tp_lora_dsp_params *params = from->params;
  for (int32_t n = 0; params->alone != NULL && n < params->alone->count; n++) {
    put_lone_channel(from, n, hidden, count, output + params->alone->channel[n], params->output_c);
  }
}

/* The whole table; whether all of it fits. */
static inline int put_all(const tp_lora_table *from, int32_t rank) {
  const tp_lora_dsp_params *params = from->params;
  const int32_t size = BLOCK * words_of(rank);
  int32_t *block = from->table;
  int fit = 1;
  for (int32_t first = 0; first < params->computed_c; first += BLOCK, block += size) {
    if (first + BLOCK > params->computed_c) { /* entries without a channel */
      memset(block, 0, (size_t)size * sizeof *block);
    }
    put_starts(from, rank, first, block);
    for (int32_t i = 0; i < BLOCK; i++) {
      const int32_t c = first + channel_of(i);
      if (c < params->computed_c) {
        fit &= put(from, rank, computed(params, c), i, block);
      }
    }
  }
  return fit;
}

/* The largest magnitude of `count` values, which may be -32768. */
static int32_t largest_of(const int16_t *hidden, int32_t count) {
  uint32_t largest = 0, smallest = 0;
  const int16_t *end = hidden + count;
  for (; end - hidden >= 4; hidden += 4) {
    const uint32_t a = tp_load_word(hidden), b = tp_load_word(hidden + 2);
    largest = tp_max_s16x2(tp_max_s16x2(largest, a), b);
    smallest = tp_min_s16x2(tp_min_s16x2(smallest, a), b);
  }
  int32_t peak = tp_peak_of_pairs(largest, smallest);
  for (; hidden < end; hidden++) {
    peak = tp_max_s32(peak, tp_abs_s32(*hidden));
  }
  return peak;
}

tp_lora_table tp_make_lora_table(const tp_lora_dsp_params *params, const int16_t *hidden, int32_t count, const int8_t *lora_B,
                       const int8_t *lora_shift, void *scratch) {
  const int32_t rank = params->rank;
  uint32_t *const words = (uint32_t *)scratch + BLOCK * params->blocks * words_of(rank);
  int8_t *const outputs = (int8_t *)(words + (rank > IN_REGISTERS ? rank + rank % 2 : 0));
  void *const rest = outputs + (params->alone != NULL ? (2 * params->computed_c + 3) / 4 * 4 : 0);
  tp_lora_table made = {params, lora_B, lora_shift, scratch, words, outputs, rest, 0, 0, 0, 0};
  made.peak = largest_of(hidden, count);
  made.least = least_shift(params, made.peak * rank * B_MAX);
  if (rank == 1) {
    made.shift = hidden_shift(&made);
    made.exact = !put_all(&made, 1);
  } else { /* the code of the most usual rank is made by itself */
    made.exact = !(rank == 4 ? put_all(&made, 4) : put_all(&made, rank));
  }
  return made;
}

/* The addend of channel c at one position. */
static int32_t addend(const tp_lora_table *from, const int16_t *hidden, int32_t c) {
  const tp_lora_dsp_params *params = from->params;
  int32_t sum = 0;
  for (int32_t r = 0; r < params->rank; r++) {
    sum += from->lora_B[c * params->rank + r] * hidden[r];
  }
  return tp_within_limit(tp_round_shift_s64(sum, from->lora_shift[c]), params->limit);
}

/* Hidden values with which a table of `tp_put_addends` gives nothing, or its addends. */
static const int16_t parts[2][RANK_MAX] = {{0}, {4, 1 << 14}};
static const int16_t parts_of_one[2] = {0, 1 << 8};

tp_lora_positions tp_put_addends(const tp_lora_table *from, const int16_t *hidden, int second) {
  const int32_t rank = from->params->rank, words = words_of(rank);
  int32_t *block = from->table;
  for (int32_t first = 0; first < BLOCK * from->params->blocks; first += BLOCK, block += BLOCK * words) {
    memset(block, 0, (size_t)(BLOCK * words) * sizeof *block);
    put_starts(from, rank, first, block);
    for (int32_t i = 0; i < BLOCK; i++) {
      const int32_t c = first + channel_of(i);
      const int32_t a = c < from->params->computed_c ? addend(from, hidden, computed(from->params, c)) : 0;
      const int32_t low = ((a + 2048) & 4095) - 2048;
      if (rank == 1) {
        block[i * words] = a * 256;
        continue;
      }
      block[rank <= IN_REGISTERS ? i * words : i] = (int32_t)tp_make_pair(low, (a - low) >> 12);
      block[rank <= IN_REGISTERS ? (i + 1) * words - 2 : BLOCK * (words - 1) + i] = 1 << 30;
    }
  }
  const int16_t *nothing = rank == 1 ? parts_of_one : parts[0], *all = rank == 1 ? parts_of_one + 1 : parts[1];
  const int32_t apart = second ? (int32_t)((all - nothing) * (int32_t)sizeof *all) : 0;
  const tp_lora_positions at = {second ? nothing : all, apart, 0, HIDDEN_LEFT_MAX, from->words, {0}};
  return at;
}
