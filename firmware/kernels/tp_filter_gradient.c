#include "tinypeft/tp_accumulate.h"
#include "tinypeft/tp_kernels.h"

/* The output coordinates whose tap lies inside the input: first <= output < last. */
static tp_taps outputs_inside(int32_t tap, int32_t stride, int32_t pad, int32_t dilation, int32_t outputs,
                              int32_t inputs) {
  tp_taps range = {tap * dilation - pad, 0, outputs};
  while (range.begin < outputs && range.begin * stride + range.origin < 0) {
    range.begin++;
  }
  while (range.end > range.begin && (range.end - 1) * stride + range.origin >= inputs) {
    range.end--;
  }
  return range;
}

/* Where one tap meets the input. */
typedef struct {
  tp_taps rows, columns;
} tap_range;

/* The sum of d_output[.,c] over the positions of a tap. */
static int32_t sum_over(const tp_window *w, const tp_mantissa *d_output, tap_range tap) {
  int32_t sum = 0;
  for (int32_t oy = tap.rows.begin; oy < tap.rows.end; oy++) {
    const tp_mantissa *g = d_output + (oy * w->output_w + tap.columns.begin) * w->output_c;
    for (int32_t ox = tap.columns.begin; ox < tap.columns.end; ox++) {
      sum += *g;
      g += w->output_c;
    }
  }
  return sum;
}

/* sum[j] += d_output[.,c] * input[.,k+j] over the positions of a tap, for `channels` of them. */
#define CORRELATE(name, type)                                                                                          \
  static void name(const tp_window *w, const tp_mantissa *d_output, const int8_t *input, tap_range tap, int32_t channels,  \
                   type sum[TP_BLOCK]) {                                                                               \
    const int32_t step = w->stride_w * w->input_c;                                                                     \
    type s0 = sum[0], s1 = sum[1], s2 = sum[2], s3 = sum[3];                                                           \
    for (int32_t oy = tap.rows.begin; oy < tap.rows.end; oy++) {                                                       \
      const int32_t y = oy * w->stride_h + tap.rows.origin;                                                            \
      const int32_t x = tap.columns.begin * w->stride_w + tap.columns.origin;                                          \
      const int8_t *source = input + (y * w->input_w + x) * w->input_c;                                                \
      const tp_mantissa *g = d_output + (oy * w->output_w + tap.columns.begin) * w->output_c;                              \
      if (channels == TP_BLOCK) {                                                                                      \
        for (int32_t n = tap.columns.end - tap.columns.begin; n > 0; n--) {                                            \
          const int32_t mantissa = *g;                                                                                 \
          s0 += (type)mantissa * source[0];                                                                            \
          s1 += (type)mantissa * source[1];                                                                            \
          s2 += (type)mantissa * source[2];                                                                            \
          s3 += (type)mantissa * source[3];                                                                            \
          g += w->output_c;                                                                                            \
          source += step;                                                                                              \
        }                                                                                                              \
        continue;                                                                                                      \
      }                                                                                                                \
      for (int32_t n = tap.columns.end - tap.columns.begin; n > 0; n--) {                                              \
        const int32_t mantissa = *g;                                                                                   \
        s0 += (type)mantissa * source[0];                                                                              \
        s1 += channels > 1 ? (type)mantissa * source[1] : 0;                                                           \
        s2 += channels > 2 ? (type)mantissa * source[2] : 0;                                                           \
        g += w->output_c;                                                                                              \
        source += step;                                                                                                \
      }                                                                                                                \
    }                                                                                                                  \
    sum[0] = s0;                                                                                                       \
    sum[1] = s1;                                                                                                       \
    sum[2] = s2;                                                                                                       \
    sum[3] = s3;                                                                                                       \
  }

CORRELATE(correlate_s32, int32_t)
CORRELATE(correlate_s64, int64_t)

#undef CORRELATE

/* One row, with sums of `type` that `narrow` gives as int32. */
#define FILTER_GRADIENT(name, type, correlate, narrow)                                                                 \
  int name(const void *params, const tp_bfp *d_output, const void *source, int32_t row, int32_t column, int32_t shift, \
           int32_t *gradient) {                                                                                        \
    const tp_filter_gradient_params *p = params;                                                                       \
    const tp_window *w = &p->window;                                                                                   \
    const tp_mantissa *g = d_output->mantissa + row;                                                                       \
    const int8_t *input = (const int8_t *)source + (p->first_channel != NULL ? p->first_channel[row] : 0);             \
    int32_t any = 0;                                                                                                   \
    for (int32_t i = 0; i < w->kernel_h; i++) {                                                                        \
      tap_range tap;                                                                                                   \
      tap.rows = outputs_inside(i, w->stride_h, w->pad_top, w->dilation_h, w->output_h, w->input_h);                   \
      for (int32_t j = 0; j < w->kernel_w; j++) {                                                                      \
        tap.columns = outputs_inside(j, w->stride_w, w->pad_left, w->dilation_w, w->output_w, w->input_w);             \
        const type offset = (type)sum_over(w, g, tap) * p->input_offset;                                               \
        for (int32_t k = 0; k < p->filter_c; k += TP_BLOCK) {                                                          \
          type sum[TP_BLOCK] = {offset, offset, offset, offset};                                                       \
          const int32_t channels = tp_min_s32(p->filter_c - k, TP_BLOCK);                                              \
          correlate(w, g, input + k, tap, channels, sum);                                                              \
          for (int32_t n = 0; n < channels; n++) {                                                                     \
            *gradient = (int32_t)(narrow);                                                                             \
            any |= *gradient++;                                                                                        \
          }                                                                                                            \
        }                                                                                                              \
      }                                                                                                                \
    }                                                                                                                  \
    (void)column, (void)shift;                                                                                         \
    return any != 0;                                                                                                   \
  }

FILTER_GRADIENT(tp_filter_gradient_s32, int32_t, correlate_s32, sum[n])
FILTER_GRADIENT(tp_filter_gradient_wide_s32, int64_t, correlate_s64, tp_round_shift_s64(sum[n], shift))

#undef FILTER_GRADIENT

int tp_dense_gradient_s32(const void *params, const tp_bfp *d_output, const void *source, int32_t row, int32_t column,
                          int32_t shift, int32_t *gradient) {
  const tp_filter_gradient_params *p = params;
  const int8_t *input = source;
  const int32_t mantissa = d_output->mantissa[row];
  (void)column, (void)shift;
  if (mantissa == 0) {
    memset(gradient, 0, (size_t)p->window.input_c * sizeof *gradient);
    return 0;
  }
  int32_t any = 0;
  for (int32_t k = 0; k < p->window.input_c; k++) {
    gradient[k] = mantissa * (input[k] + p->input_offset);
    any |= gradient[k];
  }
  return any != 0;
}

int tp_bias_gradient_s32(const void *params, const tp_bfp *d_output, const void *source, int32_t row, int32_t column,
                         int32_t shift, int32_t *gradient) {
  const tp_position_sum_params *p = params;
  int32_t any = 0;
  (void)source, (void)row, (void)column;
  if (p->positions == 1) {
    for (int32_t c = 0; c < p->channels; c++) {
      gradient[c] = d_output->mantissa[c];
      any |= gradient[c];
    }
    return any != 0;
  }
  for (int32_t c = 0; c < p->channels; c++) {
    int64_t sum = 0;
    for (int32_t i = 0; i < p->positions; i++) {
      sum += d_output->mantissa[i * p->channels + c];
    }
    gradient[c] = (int32_t)tp_round_shift_s64(sum, shift);
    any |= gradient[c];
  }
  return any != 0;
}
