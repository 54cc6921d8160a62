#include "tinypeft/tp_accumulate.h"
#include "tinypeft/tp_kernels.h"

/* The taps of one output position that lie inside the input; returns how many. */
static int32_t list_taps(const tp_window *w, int32_t oy, int32_t ox, tp_tap *taps) {
  int32_t count = 0;
  for (int32_t i = 0; i < w->kernel_h; i++) {
    const int32_t y = oy * w->stride_h - w->pad_top + i * w->dilation_h;
    if (y < 0 || y >= w->input_h) {
      continue;
    }
    for (int32_t j = 0; j < w->kernel_w; j++) {
      const int32_t x = ox * w->stride_w - w->pad_left + j * w->dilation_w;
      if (x >= 0 && x < w->input_w) {
        taps[count].data = (y * w->input_w + x) * w->input_c;
        taps[count].filter = (i * w->kernel_w + j) * w->output_c;
        count++;
      }
    }
  }
  return count;
}

/* Two neighbouring channels of one output position, where each reads the input channel of its own number. */
static void two_channels(const tp_tap *taps, int32_t count, const int8_t *input, const int8_t *filter, int32_t offset,
                         int32_t *first, int32_t *second) {
  int32_t a = 0, b = 0;
  for (int32_t t = 0; t < count; t++) {
    const int8_t *x = input + taps[t].data;
    const int8_t *f = filter + taps[t].filter;
    a += (int32_t)f[0] * (x[0] + offset);
    b += (int32_t)f[1] * (x[1] + offset);
  }
  *first = a;
  *second = b;
}

static int32_t one_channel(const tp_tap *taps, int32_t count, const int8_t *input, const int8_t *filter,
                           int32_t offset) {
  int32_t acc = 0;
  for (int32_t t = 0; t < count; t++) {
    acc += (int32_t)filter[taps[t].filter] * (input[taps[t].data] + offset);
  }
  return acc;
}

void tp_depthwise_conv_s8(const tp_conv_params *params, const int8_t *input, const int8_t *filter, const int32_t *bias,
                          const int32_t *multiplier, const int8_t *shift, int8_t *output, void *taps) {
  const tp_window *w = &params->window;
  const int32_t depth_multiplier = w->output_c / w->input_c;
  for (int32_t oy = 0; oy < w->output_h; oy++) {
    for (int32_t ox = 0; ox < w->output_w; ox++) {
      const int32_t count = list_taps(w, oy, ox, taps);
      int32_t next = 0;
      for (int32_t c = 0; c < w->output_c; c++) {
        int32_t acc = next;
        if (depth_multiplier > 1) {
          acc = one_channel(taps, count, input + c / depth_multiplier, filter + c, params->input_offset);
        } else if (c % 2 == 0 && c + 1 < w->output_c) {
          two_channels(taps, count, input + c, filter + c, params->input_offset, &acc, &next);
        } else if (c % 2 == 0) {
          acc = one_channel(taps, count, input + c, filter + c, params->input_offset);
        }
        if (bias != NULL) {
          acc += bias[c];
        }
        acc = tp_requantize(acc, multiplier[c], shift[c]) + params->output_offset;
        *output++ = (int8_t)tp_clamp_s32(acc, params->activation_min, params->activation_max);
      }
    }
  }
}
