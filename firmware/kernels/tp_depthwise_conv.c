#include "tinypeft/tp_arithmetic.h"
#include "tinypeft/tp_kernels.h"

void tp_depthwise_conv_s8(const tp_conv_params *params, const int8_t *input, const int8_t *filter, const int32_t *bias,
                          const int32_t *multiplier, const int32_t *shift, int8_t *output) {
  const tp_window *w = &params->window;
  const int32_t depth_multiplier = w->output_c / w->input_c;
  for (int32_t oy = 0; oy < w->output_h; oy++) {
    const tp_taps rows = tp_window_taps(oy, w->stride_h, w->pad_top, w->dilation_h, w->kernel_h, w->input_h);
    for (int32_t ox = 0; ox < w->output_w; ox++) {
      const tp_taps columns = tp_window_taps(ox, w->stride_w, w->pad_left, w->dilation_w, w->kernel_w, w->input_w);
      for (int32_t c = 0; c < w->output_c; c++) {
        int32_t acc = bias != NULL ? bias[c] : 0;
        for (int32_t i = rows.begin; i < rows.end; i++) {
          const int32_t row = (rows.origin + i * w->dilation_h) * w->input_w;
          for (int32_t j = columns.begin; j < columns.end; j++) {
            const int32_t position = row + columns.origin + j * w->dilation_w;
            const int32_t value = input[position * w->input_c + c / depth_multiplier];
            acc += (int32_t)filter[(i * w->kernel_w + j) * w->output_c + c] * (value + params->input_offset);
          }
        }
        acc = tp_requantize(acc, multiplier[c], shift[c]) + params->output_offset;
        output[(oy * w->output_w + ox) * w->output_c + c] =
            (int8_t)tp_clamp_s32(acc, params->activation_min, params->activation_max);
      }
    }
  }
}
