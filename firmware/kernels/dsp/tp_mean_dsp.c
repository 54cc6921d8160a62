#include "tinypeft/tp_arithmetic.h"
#include "tinypeft/tp_channel_sums.h"
#include "tinypeft/tp_kernels_dsp_elementwise.h"

static inline int8_t mean(const tp_mean_dsp_params *params, int32_t sum) {
  return (int8_t)tp_ssat8(tp_requantize_doubled(2 * sum, params->multiplier, params->shift, params->output_offset));
}

static TP_NOINLINE void four_channels(const tp_mean_dsp_params *params, const int8_t *x, int8_t *output) {
  int32_t sums[4] = {params->start, params->start, params->start, params->start};
  for (int32_t left = params->count; left > 0; left -= TP_SHORT_SUM) {
    const tp_channel_sums nothing = {0, 0};
    const int32_t count = tp_min_s32(left, TP_SHORT_SUM);
    tp_add_channel_sums(tp_add_pixels(nothing, x, count, params->channels), sums);
    x += count * params->channels;
  }
  for (int32_t i = 0; i < 4; i++) {
    output[i] = mean(params, sums[i]);
  }
}

void tp_mean_dsp(const tp_mean_dsp_params *params, const int8_t *input, int8_t *output) {
  int32_t c = 0;
  for (; c + 4 <= params->channels; c += 4) {
    four_channels(params, input + c, output + c);
  }
  for (; c < params->channels; c++) {
    int32_t sum = params->start;
    for (int32_t i = 0; i < params->count; i++) {
      sum += input[i * params->channels + c];
    }
    output[c] = mean(params, sum);
  }
}
