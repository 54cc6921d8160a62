#include "tinypeft/tp_accumulate.h"
#include "tinypeft/tp_kernels.h"

void tp_conv_s8(const tp_conv_params *params, const int8_t *input, const int8_t *filter, const int32_t *bias,
                const int32_t *multiplier, const int32_t *shift, const int16_t *hidden, const int8_t *lora_B,
                const int8_t *lora_shift, int8_t *output) {
  const tp_window *w = &params->window;
  const int32_t filter_size = w->kernel_h * w->kernel_w * w->input_c;
  for (int32_t oy = 0; oy < w->output_h; oy++) {
    const tp_taps rows = tp_window_taps(oy, w->stride_h, w->pad_top, w->dilation_h, w->kernel_h, w->input_h);
    for (int32_t ox = 0; ox < w->output_w; ox++) {
      const tp_taps columns = tp_window_taps(ox, w->stride_w, w->pad_left, w->dilation_w, w->kernel_w, w->input_w);
      const int32_t position = oy * w->output_w + ox;
      for (int32_t c = 0; c < w->output_c; c++) {
        int32_t acc = tp_window_dot_s8(w, rows, columns, input, filter + c * filter_size, params->input_offset);
        if (bias != NULL) {
          acc += bias[c];
        }
        if (params->rank > 0) {
          acc += tp_lora_up(hidden + position * params->rank, lora_B + c * params->rank, params->rank, lora_shift[c]);
        }
        acc = tp_requantize(acc, multiplier[c], shift[c]) + params->output_offset;
        output[position * w->output_c + c] = (int8_t)tp_clamp_s32(acc, params->activation_min, params->activation_max);
      }
    }
  }
}
