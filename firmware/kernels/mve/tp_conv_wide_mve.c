#include "tinypeft/tp_lora_mve.h"

#if defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 1)

/* Two neighbouring channels. The assembly reads it, so that it has registers left. */
typedef struct {
  const int8_t *filter;
  int32_t twice; /* how often two chunks of 16 inputs lie behind the first one or two */
  int32_t bias_a, multiplier_a;
  int32_t shift_a;
  int32_t bias_b, multiplier_b;
  int32_t shift_b;
  int32_t step;  /* from a group's first position to the next group's */
  int32_t row_bytes;
  const int32_t *starts; /* of a LoRA: what the accumulators of the next group start from, (2,4) */
} pair;

#define FILTER 0
#define TWICE 4
#define BIAS_A 8
#define SHIFT_A 16
#define BIAS_B 20
#define SHIFT_B 28
#define STEP 32
#define STARTS 40
#define TEXT(x) #x
#define AT(x) "[%[pair], #" TEXT(x) "]"

_Static_assert(offsetof(pair, filter) == FILTER && offsetof(pair, twice) == TWICE, "read by the assembly");
_Static_assert(offsetof(pair, bias_a) == BIAS_A && offsetof(pair, shift_a) == SHIFT_A, "read by the assembly");
_Static_assert(offsetof(pair, bias_b) == BIAS_B && offsetof(pair, shift_b) == SHIFT_B, "read by the assembly");
_Static_assert(offsetof(pair, step) == STEP && offsetof(pair, row_bytes) == STEP + 4, "read by the assembly");
_Static_assert(offsetof(pair, starts) == STARTS, "read by the assembly");

/* 16 inputs of three positions for both channels; `mac` is vmladav for the first, then vmladava. */
#define CHUNK(mac)                 \
  "vldrb.8 q0, [%[filter]], #16\n" \
  "vldrb.8 q2, [%[x0]], #16\n"     \
  "vldrb.8 q1, [%[filter]], #16\n" \
  mac ".s8 %[a0], q2, q0\n"        \
  "vldrb.8 q3, [%[x1]], #16\n"     \
  mac ".s8 %[b0], q2, q1\n"        \
  mac ".s8 %[a1], q3, q0\n"        \
  "vldrb.8 q2, [%[x2]], #16\n"     \
  mac ".s8 %[b1], q3, q1\n"        \
  mac ".s8 %[a2], q2, q0\n"        \
  mac ".s8 %[b2], q2, q1\n"

/* Three accumulators of a channel in the vector q, the last of them twice, requantised. Their registers become free. */
#define REQUANTIZE(q, a0, a1, a2, bias, shift, START, ROUND)     \
  "vmov " q "[2], " q "[0], %[" a0 "], %[" a2 "]\n"              \
  "vmov " q "[3], " q "[1], %[" a1 "], %[" a2 "]\n" START(q, a0) \
  "ldrd %[" a0 "], %[" a1 "], " AT(bias) "\n"                    \
  "ldr %[" a2 "], " AT(shift) "\n" BIAS(q, a0)                   \
  "vqrdmulh.s32 " q ", " q ", %[" a1 "]\n" ROUND(q)              \
  "vrshl.s32 " q ", %[" a2 "]\n"
#define BIAS(q, a0) "vadd.i32 " q ", " q ", %[" a0 "]\n"

/* What a LoRA adds to either channel, its bias apart. */
#define NO_LORA(q, a0)
#define LORA(q, a0)                 \
  "ldr %[" a0 "], " AT(STARTS) "\n" \
  "vldrw.32 q3, [%[" a0 "]], #16\n" \
  "str %[" a0 "], " AT(STARTS) "\n" \
  "vadd.i32 " q ", " q ", q3\n"

#define AS_IT_IS(q)
#define TIES_AWAY(q)          \
  "vshr.s32 q2, " q ", #31\n" \
  "vadd.i32 " q ", " q ", q2\n"

/* Both channels as int16, a position's beside each other, with the zero point, inside the range. */
#define NARROW           \
  "vqmovnb.s32 q0, q0\n" \
  "vqmovnt.s32 q0, q1\n" \
  "vqadd.s16 q0, q0, %q[offset]\n"
#define CLAMPED                \
  NARROW                       \
  "vmax.s16 q0, q0, %q[low]\n" \
  "vmin.s16 q0, q0, %q[high]\n"
#define SATURATED \
  NARROW          \
  "vqmovnb.s16 q0, q0\n"

#define ODD CHUNK("vmladav")
#define EVEN CHUNK("vmladav") CHUNK("vmladava")

/* FIRST: as many chunks as leave an even number, ODD or EVEN. */
#define GROUPS(FIRST, START, ROUND, NARROWED)                                                                      \
  __asm__ volatile("1:\n"                                                                                          \
                   "ldrd %[filter], lr, " AT(FILTER) "\n" FIRST                                                    \
                   "wls lr, lr, 3f\n"                                                                              \
                   "2:\n" CHUNK("vmladava") CHUNK("vmladava")                                                      \
                   "le lr, 2b\n"                                                                                   \
                   "3:\n" REQUANTIZE("q0", "a0", "a1", "a2", BIAS_A, SHIFT_A, START, ROUND)                        \
                   REQUANTIZE("q1", "b0", "b1", "b2", BIAS_B, SHIFT_B, START, ROUND) NARROWED                      \
                   "vstrb.16 q0, [%[output], %q[offsets]]\n"                                                       \
                   "ldrd %[a0], %[a1], " AT(STEP) "\n"                                                             \
                   "add %[output], %[output], %[a0]\n"                                                             \
                   "mov %[x0], %[x2]\n"                                                                            \
                   "add %[x1], %[x2], %[a1]\n"                                                                     \
                   "add %[x2], %[x1], %[a1]\n"                                                                     \
                   "subs %[groups], %[groups], #1\n"                                                               \
                   "bne 1b\n"                                                                                      \
                   : [a0] "=&Te"(a0), [a1] "=&Te"(a1), [a2] "=&Te"(a2), [b0] "=&Te"(b0), [b1] "=&Te"(b1),          \
                     [b2] "=&Te"(b2), [filter] "=&r"(filter), [x0] "+r"(x0), [x1] "+r"(x1), [x2] "+r"(x2),         \
                     [output] "+r"(output), [groups] "+r"(groups)                                                  \
                   : [pair] "r"(p), [low] "w"(low), [high] "w"(high), [offset] "w"(offset), [offsets] "w"(offsets) \
                   : "q0", "q1", "q2", "q3", "lr", "cc", "memory")

/* What all channels share. */
typedef struct {
  const int8_t *rows; /* the gathered inputs of a block of positions */
  int8_t *output;     /* of the first of them, channel 0 */
  int32_t positions;  /* in the block, at least 1 */
  int32_t channels;
  const tp_output_mve *to;
} block;

/* Two channels from c on at `groups` times three positions, from the row number `first` of the block on. */
#define CHANNELS(name, FIRST, START, ROUND, NARROWED)                                                            \
  static TP_NOINLINE void name(const block *b, int32_t first, int32_t groups, pair *p, int32_t c) {              \
    int32_t a0, a1, a2, b0, b1, b2;                                                                              \
    const int8_t *filter;                                                                                        \
    const int32_t second = tp_min_s32(1, b->positions - 1);                                                      \
    const int32_t third = tp_min_s32(2, b->positions - 1);                                                       \
    const int8_t *x0 = b->rows + first * p->row_bytes;                                                           \
    const int8_t *x1 = x0 + second * p->row_bytes;                                                               \
    const int8_t *x2 = x0 + third * p->row_bytes;                                                                \
    int8_t *output = b->output + first * b->channels + c;                                                        \
    const uint32x4_t positions = tp_offsets_mve(b->channels, third); /* below 2^16 - 1 */                        \
    const uint32x4_t offsets = vmlaq_n_u32(vdupq_n_u32((uint32_t)1 << 16), positions, ((uint32_t)1 << 16) + 1u); \
    const int16x8_t low = vdupq_n_s16((int16_t)b->to->activation_min);                                           \
    const int16x8_t high = vdupq_n_s16((int16_t)b->to->activation_max);                                          \
    const int16x8_t offset = vdupq_n_s16((int16_t)b->to->output_offset);                                         \
    GROUPS(FIRST, START, ROUND, NARROWED);                                                                       \
  }

CHANNELS(odd_clamped, ODD, NO_LORA, AS_IT_IS, CLAMPED)
CHANNELS(odd_ties, ODD, NO_LORA, TIES_AWAY, SATURATED)
CHANNELS(even_clamped, EVEN, NO_LORA, AS_IT_IS, CLAMPED)
CHANNELS(even_ties, EVEN, NO_LORA, TIES_AWAY, SATURATED)
CHANNELS(adapted_odd_clamped, ODD, LORA, AS_IT_IS, CLAMPED)
CHANNELS(adapted_odd_ties, ODD, LORA, TIES_AWAY, SATURATED)
CHANNELS(adapted_even_clamped, EVEN, LORA, AS_IT_IS, CLAMPED)
CHANNELS(adapted_even_ties, EVEN, LORA, TIES_AWAY, SATURATED)

typedef void channels_function(const block *b, int32_t first, int32_t groups, pair *p, int32_t c);

/* The inputs of `count` positions from the number `first` on. */
static const int8_t *gather(const tp_conv_mve_params *params, const int8_t *input, int32_t first, int32_t count,
                            int8_t *rows) {
  if (params->direct) {
    return input;
  }
  tp_gather_rows_mve_s8(params, input, first, count, rows);
  return rows;
}

/* What the channels from `at` on are given. */
static inline void set_tables(pair *p, const int32_t *bias, const int32_t *multiplier, const int32_t *shift,
                              int32_t at) {
  p->bias_a = bias[at];
  p->multiplier_a = multiplier[at];
  p->shift_a = shift[at];
  p->bias_b = bias[at + 1];
  p->multiplier_b = multiplier[at + 1];
  p->shift_b = shift[at + 1];
}

/* Two channels at all positions of the block: behind whole groups, the last three once more. */
static inline void all_groups(const block *b, channels_function *channels, pair *p, int32_t at) {
  if (b->positions >= 3) {
    channels(b, 0, b->positions / 3, p, at);
  }
  if (b->positions % 3 != 0) {
    channels(b, tp_max_s32(b->positions - 3, 0), 1, p, at);
  }
}

void tp_conv_wide_mve_s8(const tp_conv_mve_params *params, const int8_t *input, const int32_t *filter,
                         const int32_t *bias, const int32_t *multiplier, const int32_t *shift, int8_t *output,
                         void *scratch) {
  const tp_window *w = &params->window;
  const int32_t positions = w->output_h * w->output_w;
  const int32_t chunks = params->row_bytes / 16;
  channels_function *odd = params->output.ties != 0 ? odd_ties : odd_clamped;
  channels_function *even = params->output.ties != 0 ? even_ties : even_clamped;
  pair p = {.twice = (chunks - 1) / 2, .step = 3 * w->output_c, .row_bytes = params->row_bytes};
  for (int32_t first = 0; first < positions; first += params->block) {
    const int32_t count = tp_min_s32(params->block, positions - first);
    const int8_t *rows = gather(params, input, first, count, scratch);
    const block b = {rows, output + first * w->output_c, count, w->output_c, &params->output};
    p.filter = (const int8_t *)filter;
    for (int32_t c = 0; c < w->output_c; c += 2) {
      const int32_t at = tp_min_s32(c, w->output_c - 2); /* of an odd number the last but one comes twice */
      set_tables(&p, bias, multiplier, shift, at);
      all_groups(&b, chunks % 2 != 0 ? odd : even, &p, at);
      p.filter += 2 * params->row_bytes;
    }
  }
}

void tp_conv_wide_lora_mve_s8(const tp_conv_mve_params *params, const int8_t *input, const int32_t *filter,
                              const int32_t *bias, const int32_t *multiplier, const int32_t *shift,
                              const int16_t *hidden, const int8_t *lora_B, const int8_t *lora_shift, int8_t *output,
                              void *scratch) {
  const tp_window *w = &params->window;
  const int32_t positions = w->output_h * w->output_w;
  const int32_t chunks = params->row_bytes / 16;
  channels_function *odd = params->output.ties != 0 ? adapted_odd_ties : adapted_odd_clamped;
  channels_function *even = params->output.ties != 0 ? adapted_even_ties : adapted_even_clamped;
  pair p = {.twice = (chunks - 1) / 2, .step = 3 * w->output_c, .row_bytes = params->row_bytes};
  const tp_lora_mve lora = tp_lora_in_mve(params, 3, lora_B, lora_shift, scratch);
  for (int32_t first = 0; first < positions; first += params->block) {
    const int32_t count = tp_min_s32(params->block, positions - first);
    const int8_t *rows = gather(params, input, first, count, scratch);
    const block b = {rows, output + first * w->output_c, count, w->output_c, &params->output};
    tp_lora_groups_mve(&lora, hidden + first * params->rank, count);
    p.filter = (const int8_t *)filter;
    for (int32_t c = 0; c < w->output_c; c += 2) {
      const int32_t at = tp_min_s32(c, w->output_c - 2);
      set_tables(&p, bias, multiplier, shift, at);
      tp_lora_channel_mve(&lora, at, 0, 0, (count + 2) / 3, lora.starts, 8);
      tp_lora_channel_mve(&lora, at + 1, 0, 0, (count + 2) / 3, lora.starts + 4, 8);
      p.starts = lora.starts;
      all_groups(&b, chunks % 2 != 0 ? odd : even, &p, at);
      p.filter += 2 * params->row_bytes;
    }
  }
}

#endif
