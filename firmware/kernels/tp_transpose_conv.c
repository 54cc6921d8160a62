#include "tinypeft/tp_accumulate.h"
#include "tinypeft/tp_kernels.h"

/* The inputs that add to output (y,x) as a column (KH,KW,Cin), widened and offset; 0 where a tap meets none. */
static void gather_covering(const tp_window *w, const int8_t *input, int32_t input_offset, int32_t y, int32_t x,
                            int16_t *column) {
  const int32_t channels = w->output_c;
  for (int32_t i = 0; i < w->kernel_h; i++) {
    const int32_t row = tp_covering_output(y, i, w->stride_h, w->pad_top, w->dilation_h, w->output_h);
    for (int32_t j = 0; j < w->kernel_w; j++) {
      const int32_t at = tp_covering_output(x, j, w->stride_w, w->pad_left, w->dilation_w, w->output_w);
      if (row < 0 || at < 0) {
        memset(column, 0, (size_t)channels * sizeof *column);
      } else {
        tp_widen_s8(input + (row * w->output_w + at) * channels, channels, input_offset, column);
      }
      column += channels;
    }
  }
}

void tp_transpose_conv_s8(const tp_conv_params *params, const int8_t *input, const int8_t *filter, const int32_t *bias,
                          const int32_t *multiplier, const int8_t *shift, int8_t *output, void *column) {
  const tp_window *w = &params->window;
  const int32_t count = w->kernel_h * w->kernel_w * w->output_c;
  for (int32_t y = 0; y < w->input_h; y++) {
    for (int32_t x = 0; x < w->input_w; x++) {
      gather_covering(w, input, params->input_offset, y, x, column);
      for (int32_t c = 0; c < w->input_c; c += TP_BLOCK) {
        int32_t acc[TP_BLOCK];
        const int32_t filters = tp_min_s32(w->input_c - c, TP_BLOCK);
        tp_dot_rows_s8(column, filter + c * count, count, count, filters, acc);
        for (int32_t j = 0; j < filters; j++) {
          const int32_t sum = bias != NULL ? acc[j] + bias[c + j] : acc[j];
          const int32_t value = tp_requantize(sum, multiplier[c + j], shift[c + j]) + params->output_offset;
          *output++ = (int8_t)tp_clamp_s32(value, params->activation_min, params->activation_max);
        }
      }
    }
  }
}
