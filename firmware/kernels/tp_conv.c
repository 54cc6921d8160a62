#include "tinypeft/tp_accumulate.h"
#include "tinypeft/tp_kernels.h"
#include "tinypeft/tp_lora_start.h"

/* One position: its channels in groups. `start` is what accumulators start from, NULL for 0. */
static int8_t *convolve(const tp_conv_params *params, const int8_t *input, const int8_t *filter, const int32_t *start,
                        const int32_t *multiplier, const int8_t *shift, int32_t oy, int32_t ox, int8_t *output,
                        int16_t *column) {
  const tp_window *w = &params->window;
  const int32_t channels = params->filter_c;
  const int32_t count = w->kernel_h * w->kernel_w * channels;
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
        if (start != NULL) {
          value += start[c + j];
        }
        value = tp_requantize(value, multiplier[c + j], shift[c + j]) + params->output_offset;
        *output++ = (int8_t)tp_clamp_s32(value, params->activation_min, params->activation_max);
      }
    }
  }
  return output;
}

void tp_conv_s8(const tp_conv_params *params, const int8_t *input, const int8_t *filter, const int32_t *bias,
                const int32_t *multiplier, const int8_t *shift, const int16_t *hidden, const int8_t *lora_B,
                const int8_t *lora_shift, int8_t *output, void *scratch) {
  const tp_window *w = &params->window;
  int32_t *lora_start = scratch;
  int16_t *column = params->direct ? NULL : (void *)(lora_start + tp_lora_positions(params->rank) * w->output_c);
  const tp_lora lora = tp_make_lora(lora_B, lora_shift, w->output_c, params->rank);
  int32_t left = w->output_h * w->output_w;
  int32_t ready = 0;
  const int32_t *start = bias;
  for (int32_t oy = 0; oy < w->output_h; oy++) {
    for (int32_t ox = 0; ox < w->output_w; ox++) {
      if (params->rank > 0) {
        start += w->output_c;
        if (ready == 0) {
          ready = tp_min_s32(left, tp_lora_positions(params->rank));
          tp_lora_start(&lora, ready, bias, hidden, lora_start);
          hidden += ready * params->rank;
          start = lora_start;
        }
        ready--;
        left--;
      }
      output = convolve(params, input, filter, start, multiplier, shift, oy, ox, output, column);
    }
  }
}
