#include "tinypeft/tp_simd.h"
#include "tinypeft/tp_kernels_dsp.h"

/* A position as every second word of `x`: four inputs in the order 0, 2, 1, 3; what is left in theirs, up to even. */
static inline void widen(const int8_t *input, int32_t count, uint32_t *x) {
  for (int32_t i = count >> 2; i > 0; i--) {
    const uint32_t four = tp_load_word(input);
    x[0] = tp_sxtb16(four);
    x[2] = tp_sxtb16_ror8(four);
    input += 4;
    x += 4;
  }
  for (int32_t left = count & 3; left > 0; left -= 2) {
    *x = tp_pkhbt((uint32_t)input[0], left > 1 ? (uint32_t)input[1] : 0);
    input += 2;
    x += 2;
  }
}

void tp_pointwise_strided_dsp_s8(const tp_pointwise_strided_dsp_params *params, const int8_t *input, int8_t *output,
                                 void *scratch) {
  const int32_t *const last = params->words + params->word_count - 1;
  const int32_t channels = params->input_c;
  const int32_t pair_words = (channels + 1) & ~1;
  const int32_t step = params->stride_w * channels;
  const int32_t row_step = params->stride_h * params->input_w * channels - params->output_w * step;
  int32_t column = 0;
  int32_t left = params->output_h * params->output_w;
  while (left > 0) {
    const int32_t count = left < params->together ? left : params->together;
    uint32_t *x = scratch;
    for (int32_t i = 0; i < count; i++) {
      widen(input, channels, x);
      x += (i & 1) != 0 ? pair_words - 1 : 1;
      input += step;
      if (++column == params->output_w) {
        column = 0;
        input += row_step;
      }
    }
    params->dot(scratch, params->words, output, count, params->output_c, last, NULL);
    output += count * params->output_c;
    left -= count;
  }
}
