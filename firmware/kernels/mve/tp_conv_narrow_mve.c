#include "tinypeft/tp_lora_mve.h"

#if defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 1)

/* What all channels share. */
typedef struct {
  const int8_t *rows; /* the gathered inputs of a block of positions */
  int8_t *output;     /* of the first of them, channel 0 */
  int32_t positions;  /* in the block, at least 1 */
  int32_t channels;
  const tp_output_mve *to;
} block;

/* One accumulator: a row of 16, 32, 48 or 64 bytes times a filter in w0 to w3. */
#define DOT_1(a)                    \
  "vldrb.8 %q[x], [%[rows]], #16\n" \
  "vmladav.s8 %[" a "], %q[x], %q[w0]\n"
#define NEXT(a, w)                  \
  "vldrb.8 %q[x], [%[rows]], #16\n" \
  "vmladava.s8 %[" a "], %q[x], %q[" w "]\n"
#define DOT_2(a) DOT_1(a) NEXT(a, "w1")
#define DOT_3(a) DOT_2(a) NEXT(a, "w2")
#define DOT_4(a) DOT_3(a) NEXT(a, "w3")

/* `groups` times four positions behind each other, of one channel; `outputs` and `inputs` belong to START and TAIL. */
#define GROUPS(DOT, START, TAIL, outputs, inputs)                                                                     \
  __asm__ volatile("dls lr, %[a0]\n"                                                                                  \
                   "1:\n" DOT("a0") DOT("a1") DOT("a2") DOT("a3") TP_FOUR_MVE START TP_MULTIPLY_MVE TAIL("%[offset]") \
                   "vstrb.32 %q[x], [%[output], %q[offsets]]\n"                                                       \
                   "add %[output], %[output], %[step]\n"                                                              \
                   "le lr, 1b\n"                                                                                      \
                   : [a0] "+&Te"(a0), [a1] "=&Te"(a1), [a2] "=&Te"(a2), [a3] "=&Te"(a3), [x] "=&w"(x),                \
                     [rows] "+&r"(rows), [output] "+&r"(output) outputs                                               \
                   : [w0] "w"(w0), [w1] "w"(w1), [w2] "w"(w2), [w3] "w"(w3), [offsets] "w"(offsets),                  \
                     [step] "r"(step), [multiplier] "r"(multiplier[c]), [shift] "r"(shift[c]),                        \
                     [offset] "r"(offset) inputs                                                                      \
                   : "lr", "memory")
#define BIAS , [bias] "r"(bias[c])
#define STARTS TP_FREE_MVE, [starts] "+&r"(starts)

/* What the loops over channels begin with. */
#define PREPARE(chunks)                                                                                         \
  const uint32x4_t offsets = tp_offsets_mve(b->channels, b->positions - 1);                                     \
  const int32_t channels = b->channels, step = 4 * channels, offset = b->to->output_offset, ties = b->to->ties; \
  const int8_t *first_row = b->rows + first * 16 * (chunks);                                                    \
  int8_t *first_output = b->output + first * channels;
#define PREPARE_CHANNEL(chunks)                                                                               \
  int32_t a0 = groups, a1, a2, a3;                                                                            \
  int32x4_t x, free;                                                                                          \
  const int8x16_t w0 = vldrbq_s8(filter), w1 = vldrbq_s8(filter + 16 * ((chunks) > 1));                       \
  const int8x16_t w2 = vldrbq_s8(filter + 32 * ((chunks) > 2)), w3 = vldrbq_s8(filter + 48 * ((chunks) > 3)); \
  const int8_t *rows = first_row;                                                                             \
  int8_t *output = first_output++;

/* All channels at `groups` times four positions, from the row number `first` of the block on. */
#define CHANNELS(name, chunks, DOT)                                                                      \
  static TP_NOINLINE void name(const block *b, int32_t first, int32_t groups, const int8_t *filter,      \
                               const int32_t *bias, const int32_t *multiplier, const int32_t *shift) {   \
    PREPARE(chunks)                                                                                      \
    const int32x4_t low = vdupq_n_s32(b->to->activation_min), high = vdupq_n_s32(b->to->activation_max); \
    for (int32_t c = 0; c < channels; c++) {                                                             \
      PREPARE_CHANNEL(chunks)                                                                            \
      if (ties != 0 && shift[c] < 0) { /* a shift of 0 does not round */                                 \
        GROUPS(DOT, TP_BIAS_MVE, TP_TIES_MVE, TP_FREE_MVE, BIAS);                                        \
      } else {                                                                                           \
        GROUPS(DOT, TP_BIAS_MVE, TP_CLAMPED_MVE, , BIAS TP_CLAMP_MVE);                                   \
      }                                                                                                  \
      filter += 16 * (chunks);                                                                           \
    }                                                                                                    \
  }

CHANNELS(channels_16, 1, DOT_1)
CHANNELS(channels_32, 2, DOT_2)
CHANNELS(channels_48, 3, DOT_3)
CHANNELS(channels_64, 4, DOT_4)

typedef void channels_function(const block *b, int32_t first, int32_t groups, const int8_t *filter, const int32_t *bias,
                               const int32_t *multiplier, const int32_t *shift);

/* The inputs of `count` positions from the number `first` on; four are the least: the last once more. */
static const int8_t *gather(const tp_conv_mve_params *params, const int8_t *input, int32_t first, int32_t count,
                            int8_t *rows) {
  if (params->direct) {
    return input;
  }
  tp_gather_rows_mve_s8(params, input, first, count, rows);
  for (int32_t n = count; n < 4; n++) {
    tp_copy_mve_s8(rows + n * params->row_bytes, rows + (count - 1) * params->row_bytes, params->row_bytes);
  }
  return rows;
}

void tp_conv_narrow_mve_s8(const tp_conv_mve_params *params, const int8_t *input, const int32_t *filter,
                           const int32_t *bias, const int32_t *multiplier, const int32_t *shift, int8_t *output,
                           void *scratch) {
  static channels_function *const of_chunks[] = {channels_16, channels_32, channels_48, channels_64};
  channels_function *channels = of_chunks[params->row_bytes / 16 - 1];
  const tp_window *w = &params->window;
  const int32_t positions = w->output_h * w->output_w;
  const int8_t *packed = (const int8_t *)filter;
  for (int32_t first = 0; first < positions; first += params->block) {
    const int32_t count = tp_min_s32(params->block, positions - first);
    const int8_t *rows = gather(params, input, first, count, scratch);
    const block b = {rows, output + first * w->output_c, count, w->output_c, &params->output};
    if (count >= 4) {
      channels(&b, 0, count / 4, packed, bias, multiplier, shift);
    }
    if (count % 4 != 0) { /* the last four once more */
      channels(&b, tp_max_s32(count - 4, 0), 1, packed, bias, multiplier, shift);
    }
  }
}

/* The same with a LoRA; the clamp is that of int8. `groups` from the number `group` of the LoRA's on. */
#define ADAPTED_CHANNELS(name, chunks, DOT)                                                          \
  static TP_NOINLINE void name(const block *b, int32_t first, int32_t groups, const int8_t *filter,  \
                               const int32_t *bias, const int32_t *multiplier, const int32_t *shift, \
                               const tp_lora_mve *lora, int32_t group) {                             \
    PREPARE(chunks)                                                                                  \
    for (int32_t c = 0; c < channels; c++) {                                                         \
      tp_lora_channel_mve(lora, c, bias[c], group, groups, lora->starts, 4);                         \
      PREPARE_CHANNEL(chunks)                                                                        \
      const int32_t *starts = lora->starts;                                                          \
      if (ties != 0 && shift[c] < 0) {                                                               \
        GROUPS(DOT, TP_START_MVE, TP_TIES_MVE, STARTS, );                                            \
      } else {                                                                                       \
        GROUPS(DOT, TP_START_MVE, TP_SATURATED_MVE, STARTS, );                                       \
      }                                                                                              \
      filter += 16 * (chunks);                                                                       \
    }                                                                                                \
  }

ADAPTED_CHANNELS(adapted_channels_16, 1, DOT_1)
ADAPTED_CHANNELS(adapted_channels_32, 2, DOT_2)
ADAPTED_CHANNELS(adapted_channels_48, 3, DOT_3)
ADAPTED_CHANNELS(adapted_channels_64, 4, DOT_4)

typedef void adapted_channels_function(const block *b, int32_t first, int32_t groups, const int8_t *filter,
                                       const int32_t *bias, const int32_t *multiplier, const int32_t *shift,
                                       const tp_lora_mve *lora, int32_t group);

void tp_conv_narrow_lora_mve_s8(const tp_conv_mve_params *params, const int8_t *input, const int32_t *filter,
                                const int32_t *bias, const int32_t *multiplier, const int32_t *shift,
                                const int16_t *hidden, const int8_t *lora_B, const int8_t *lora_shift, int8_t *output,
                                void *scratch) {
  static adapted_channels_function *const of_chunks[] = {adapted_channels_16, adapted_channels_32, adapted_channels_48,
                                                         adapted_channels_64};
  adapted_channels_function *channels = of_chunks[params->row_bytes / 16 - 1];
  const tp_window *w = &params->window;
  const int32_t positions = w->output_h * w->output_w;
  const int8_t *packed = (const int8_t *)filter;
  const tp_lora_mve lora = tp_lora_in_mve(params, 4, lora_B, lora_shift, scratch);
  for (int32_t first = 0; first < positions; first += params->block) {
    const int32_t count = tp_min_s32(params->block, positions - first);
    const int8_t *rows = gather(params, input, first, count, scratch);
    const block b = {rows, output + first * w->output_c, count, w->output_c, &params->output};
    tp_lora_groups_mve(&lora, hidden + first * params->rank, count);
    if (count >= 4) {
      channels(&b, 0, count / 4, packed, bias, multiplier, shift, &lora, 0);
    }
    if (count % 4 != 0) {
      channels(&b, tp_max_s32(count - 4, 0), 1, packed, bias, multiplier, shift, &lora, count / 4);
    }
  }
}

#endif
