#include "tinypeft/tp_accumulate.h"
#include "tinypeft/tp_kernels.h"

void tp_conv_s8(const tp_conv_params *params, const int8_t *input, const int8_t *filter, const int32_t *bias,
                const int32_t *multiplier, const int32_t *shift, const int16_t *hidden, const int8_t *lora_B,
                const int8_t *lora_shift, int8_t *output, void *column) {
  const tp_window *w = &params->window;
  const int32_t channels = params->filter_c;
  const int32_t count = w->kernel_h * w->kernel_w * channels;
  for (int32_t oy = 0; oy < w->output_h; oy++) {
    for (int32_t ox = 0; ox < w->output_w; ox++) {
      int32_t end = 0;
      for (int32_t first = 0; first < w->input_c; first += channels) {
        int32_t c = end;
        end += params->group_c;
        const int8_t *position = input + first;
        if (column != NULL) {
          tp_gather_window_s8(w, position, channels, params->input_offset, oy, ox, column);
        } else {
          position += (oy * w->stride_h * w->input_w + ox * w->stride_w) * w->input_c;
        }
        for (; c < end; c += TP_BLOCK) {
          int32_t acc[TP_BLOCK];
          const int32_t filters = tp_min_s32(end - c, TP_BLOCK);
          if (column != NULL) {
            tp_dot_rows_s8(column, filter + c * count, count, count, filters, acc);
          } else {
            tp_dot_input_s8(position, filter + c * count, count, count, filters, acc);
          }
          for (int32_t j = 0; j < filters; j++) {
            int32_t value = acc[j];
            if (bias != NULL) {
              value += bias[c + j];
            }
            if (params->rank > 0) {
              value += tp_lora_up(hidden, lora_B + (c + j) * params->rank, params->rank, lora_shift[c + j]);
            }
            value = tp_requantize(value, multiplier[c + j], shift[c + j]) + params->output_offset;
            *output++ = (int8_t)tp_clamp_s32(value, params->activation_min, params->activation_max);
          }
        }
      }
      if (params->rank > 0) {
        hidden += params->rank;
      }
    }
  }
}
