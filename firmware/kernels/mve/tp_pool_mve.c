#include "tinypeft/tp_mve.h"

#if defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 1)

/* The taps of one output position inside the image. */
typedef struct {
  const int8_t *first; /* channel 0 of the first tap */
  int32_t rows, columns;
  int32_t row_bytes, channels;
} area;

static area area_of(const tp_window *w, const int8_t *input, int32_t oy, int32_t ox) {
  const tp_taps y = tp_window_taps(oy, w->stride_h, w->pad_top, 1, w->kernel_h, w->input_h);
  const tp_taps x = tp_window_taps(ox, w->stride_w, w->pad_left, 1, w->kernel_w, w->input_w);
  const int8_t *first = input + ((y.origin + y.begin) * w->input_w + x.origin + x.begin) * w->input_c;
  const area a = {first, y.end - y.begin, x.end - x.begin, w->input_w * w->input_c, w->input_c};
  return a;
}

/* The sums of up to four channels from c on. */
static inline int32x4_t sums(const area *a, int32_t c, mve_pred16_t some) {
  int32x4_t sum = vdupq_n_s32(0);
  const int8_t *row = a->first + c;
  for (int32_t i = 0; i < a->rows; i++) {
    const int8_t *x = row;
    for (int32_t j = 0; j < a->columns; j++) {
      sum = vaddq_s32(sum, vldrbq_z_s32(x, some));
      x += a->channels;
    }
    row += a->row_bytes;
  }
  return sum;
}

static inline int32_t mean_of(int32_t sum, int32_t count) {
  return sum > 0 ? (sum + count / 2) / count : (sum - count / 2) / count;
}

void tp_average_pool_mve_s8(const tp_pool_params *params, const int8_t *input, int8_t *output) {
  const tp_window *w = &params->window;
  for (int32_t oy = 0; oy < w->output_h; oy++) {
    for (int32_t ox = 0; ox < w->output_w; ox++) {
      const area a = area_of(w, input, oy, ox);
      for (int32_t c = 0; c < a.channels; c += 4) {
        int32_t sum[4];
        const int32_t several = tp_min_s32(a.channels - c, 4);
        vstrwq_s32(sum, sums(&a, c, vctp32q((uint32_t)several)));
        for (int32_t j = 0; j < several; j++) {
          const int32_t mean = mean_of(sum[j], a.rows * a.columns);
          *output++ = (int8_t)tp_clamp_s32(mean, params->activation_min, params->activation_max);
        }
      }
    }
  }
}

void tp_max_pool_mve_s8(const tp_pool_params *params, const int8_t *input, int8_t *output) {
  const tp_window *w = &params->window;
  const int8x16_t low = vdupq_n_s8((int8_t)params->activation_min);
  const int8x16_t high = vdupq_n_s8((int8_t)params->activation_max);
  for (int32_t oy = 0; oy < w->output_h; oy++) {
    for (int32_t ox = 0; ox < w->output_w; ox++) {
      const area a = area_of(w, input, oy, ox);
      for (int32_t c = 0; c < a.channels; c += 16) {
        const mve_pred16_t some = vctp8q((uint32_t)(a.channels - c));
        const int8_t *row = a.first + c;
        int8x16_t largest = low;
        for (int32_t i = 0; i < a.rows; i++) {
          const int8_t *x = row;
          for (int32_t j = 0; j < a.columns; j++) {
            largest = vmaxq_s8(largest, vldrbq_z_s8(x, some));
            x += a.channels;
          }
          row += a.row_bytes;
        }
        vstrbq_p_s8(output + c, vminq_s8(largest, high), some);
      }
      output += a.channels;
    }
  }
}

#endif
