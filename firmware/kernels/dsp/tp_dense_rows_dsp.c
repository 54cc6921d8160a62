#include "tinypeft/tp_kernels_dsp_dense.h"
#include "tinypeft/tp_lora_add.h"
#include "tinypeft/tp_pairs.h"

#define ROWS 4
#define SHIFT_MAX 31
/* How many rows' sums are held at once, a multiple of all that are computed together; and with those in front that a
 * last block computes again. */
#define HELD 24
#define ROOM (ROWS + HELD)

/* The sums of the rows from `first` on, as many as are held; returns how many. There is room for ROWS in front. */
static int32_t dots(const tp_dense_rows_dsp *params, const int8_t *input, const int8_t *rows, int32_t first,
                    int32_t *sums) {
  const int32_t count = tp_min_s32(params->count - first, HELD), together = params->together;
  const uint32_t offsets = tp_make_pair(params->input_offset, params->input_offset);
  const int32_t blocks = count / together, end = first + count;
  if (blocks > 0) {
    params->dots(input, rows + first * params->size, sums, offsets, blocks);
  }
  if (blocks * together < count) {
    params->dots(input, rows + (end - together) * params->size, sums + count - together, offsets, 1);
  }
  return count;
}

/* The sums of the channels from `first` on with what a LoRA adds; returns of how many. */
static int32_t adapted(const tp_dense_rows_dsp_params *params, const int8_t *input, const int8_t *filter,
                       const tp_lora *lora, const int16_t *hidden, int32_t first, int32_t *sums) {
  const int32_t count = dots(&params->rows, input, filter, first, sums);
  if (lora->rank > 0) {
    tp_lora_add(lora, first, count, hidden, sums);
  }
  return count;
}

/* tp_requantize_single of -31 <= shift < -1, and `offset`. The first carry rounds what is negative away from zero, that
 * of the shift rounds. */
static inline int32_t requantize_right(int32_t acc, int32_t multiplier, int32_t shift, int32_t offset) {
  int32_t low, high;
  __asm__(
      "smull %0, %1, %2, %3\n\t"
      "adds %0, %0, %1, asr #31\n\t"
      "adc %1, %1, %1, asr #31\n\t"
      "asrs %1, %1, %4\n\t"
      "adc %1, %1, %5"
      : "=&r"(low), "=&r"(high)
      : "r"(acc), "r"(multiplier), "r"(-1 - shift), "r"(offset)
      : "cc");
  return high;
}

/* The outputs of `count` channels; `limited`: whether the activation has limits within int8. */
TP_ALWAYS_INLINE void requantize(const tp_fully_connected_params *layer, int limited, const int32_t *sums,
                                 int32_t count, const int32_t *bias, const int32_t *multiplier, const int8_t *shift,
                                 int8_t *output) {
  const int32_t offset = layer->output_offset, low = layer->activation_min, high = layer->activation_max;
  for (const int32_t *end = sums + count; sums < end;) {
    const int32_t acc = *sums++ + *bias++, factor = *multiplier++, left = *shift++;
    const int32_t value = left < -1 ? requantize_right(acc, factor, left, offset)
                                    : tp_requantize_single_left(acc, factor, left) + offset;
    *output++ = (int8_t)(limited ? tp_clamp_s32(value, low, high) : tp_ssat8(value));
  }
}

void tp_fully_connected_rows_dsp_s8(const tp_dense_rows_dsp_params *params, const int8_t *input, const int8_t *filter,
                                    const int32_t *bias, const int32_t *multiplier, const int8_t *shift,
                                    const int16_t *hidden, const int8_t *lora_B, const int8_t *lora_shift,
                                    int8_t *output) {
  const tp_fully_connected_params *layer = &params->layer;
  const tp_lora lora = tp_make_lora(lora_B, lora_shift, layer->output_c, layer->rank);
  const int limited = layer->activation_min > INT8_MIN || layer->activation_max < INT8_MAX;
  int32_t room[ROOM], *const sums = room + ROWS;
  for (int32_t p = 0; p < layer->positions; p++, input += layer->input_c, output += layer->output_c) {
    for (int32_t c = 0; c < layer->output_c; c += HELD) {
      const int32_t count = adapted(params, input, filter, &lora, hidden, c, sums);
      if (limited) {
        requantize(layer, 1, sums, count, bias + c, multiplier + c, shift + c, output + c);
      } else {
        requantize(layer, 0, sums, count, bias + c, multiplier + c, shift + c, output + c);
      }
    }
    if (layer->rank > 0) {
      hidden += layer->rank;
    }
  }
}

/* tp_fixed_point, with few instructions of most shifts. */
static inline int32_t fixed_point(int32_t x, int32_t multiplier, int32_t shift) {
  if (shift < 1 || shift > SHIFT_MAX) {
    return tp_fixed_point(x, multiplier, shift);
  }
  const int64_t rounded = (int64_t)x * multiplier + ((uint32_t)1 << (shift - 1));
  const int32_t high = (int32_t)(rounded >> 32), sign = high >> 31;
  if (high >> (shift - 1) != sign) {
    return INT32_MAX ^ sign;
  }
  return (int32_t)((uint32_t)high << (32 - shift) | (uint32_t)rounded >> shift);
}

void tp_dense_logits_rows_dsp_s8(const tp_dense_rows_dsp_params *params, const int8_t *input, const int8_t *filter,
                                 const int32_t *bias, const float *scale, const int16_t *hidden, const int8_t *lora_B,
                                 const int8_t *lora_shift, int32_t *logits) {
  const tp_fully_connected_params *layer = &params->layer;
  const tp_lora lora = tp_make_lora(lora_B, lora_shift, layer->output_c, layer->rank);
  const int32_t logit_exponent = layer->logit_exponent;
  int32_t room[ROOM], *const sums = room + ROWS;
  for (int32_t c = 0; c < layer->output_c; c += HELD) {
    const int32_t count = adapted(params, input, filter, &lora, hidden, c, sums);
    for (const int32_t *acc = sums; acc < sums + count;) {
      int32_t multiplier;
      const int32_t exponent = tp_float_multiplier(scale++, &multiplier);
      *logits++ = fixed_point(*acc++ + *bias++, multiplier, logit_exponent - exponent);
    }
  }
}

void tp_lora_down_rows_dsp_s8(const tp_dense_rows_dsp *params, const int8_t *input, const int8_t *lora_A,
                              const int8_t *hidden_shift, int16_t *hidden) {
  const int32_t shift = hidden_shift[0];
  int32_t room[ROOM], *const sums = room + ROWS;
  for (int32_t r = 0; r < params->count; r += HELD) {
    const int32_t count = dots(params, input, lora_A, r, sums);
    for (int32_t j = 0; j < count; j++) { /* sums are below 2^26 */
      const int narrow = shift >= 0 && shift <= SHIFT_MAX;
      *hidden++ = (int16_t)(narrow ? tp_round_doubled(sums[j], shift) : tp_round_shift_s64(sums[j], shift));
    }
  }
}
