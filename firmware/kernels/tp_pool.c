#include "tinypeft/tp_arithmetic.h"
#include "tinypeft/tp_kernels_pool.h"
#include "tinypeft/tp_narrowing.h"

/* Channels whose sums are held at once by the average pool's gradient. */
#define BLOCK 8

static tp_taps rows_of(const tp_window *window, int32_t output_y) {
  return tp_window_taps(output_y, window->stride_h, window->pad_top, 1, window->kernel_h, window->input_h);
}

static tp_taps columns_of(const tp_window *window, int32_t output_x) {
  return tp_window_taps(output_x, window->stride_w, window->pad_left, 1, window->kernel_w, window->input_w);
}

static int32_t taps_inside(tp_taps rows, tp_taps columns) {
  return (rows.end - rows.begin) * (columns.end - columns.begin);
}

static int32_t input_index(const tp_window *window, int32_t y, int32_t x, int32_t c) {
  return (y * window->input_w + x) * window->input_c + c;
}

static int32_t divide_rounded(int32_t sum, int32_t count) {
  return sum > 0 ? (sum + count / 2) / count : (sum - count / 2) / count;
}

void tp_average_pool_s8(const tp_pool_params *params, const int8_t *input, int8_t *output) {
  const tp_window *window = &params->window;
  for (int32_t output_y = 0; output_y < window->output_h; output_y++) {
    const tp_taps rows = rows_of(window, output_y);
    for (int32_t output_x = 0; output_x < window->output_w; output_x++) {
      const tp_taps columns = columns_of(window, output_x);
      const int32_t count = taps_inside(rows, columns);
      for (int32_t c = 0; c < window->input_c; c++) {
        int32_t sum = 0;
        for (int32_t ky = rows.begin; ky < rows.end; ky++) {
          for (int32_t kx = columns.begin; kx < columns.end; kx++) {
            sum += input[input_index(window, rows.origin + ky, columns.origin + kx, c)];
          }
        }
        const int32_t mean = divide_rounded(sum, count);
        *output++ = (int8_t)tp_clamp_s32(mean, params->activation_min, params->activation_max);
      }
    }
  }
}

/* The index of the first largest input of a window. */
static int32_t first_largest(const tp_window *window, const int8_t *input, tp_taps rows, tp_taps columns, int32_t c) {
  int32_t best = input_index(window, rows.origin + rows.begin, columns.origin + columns.begin, c);
  for (int32_t ky = rows.begin; ky < rows.end; ky++) {
    for (int32_t kx = columns.begin; kx < columns.end; kx++) {
      const int32_t index = input_index(window, rows.origin + ky, columns.origin + kx, c);
      if (input[index] > input[best]) {
        best = index;
      }
    }
  }
  return best;
}

void tp_max_pool_s8(const tp_pool_params *params, const int8_t *input, int8_t *output) {
  const tp_window *window = &params->window;
  for (int32_t output_y = 0; output_y < window->output_h; output_y++) {
    const tp_taps rows = rows_of(window, output_y);
    for (int32_t output_x = 0; output_x < window->output_w; output_x++) {
      const tp_taps columns = columns_of(window, output_x);
      for (int32_t c = 0; c < window->input_c; c++) {
        const int32_t largest = input[first_largest(window, input, rows, columns, c)];
        *output++ = (int8_t)tp_clamp_s32(largest, params->activation_min, params->activation_max);
      }
    }
  }
}

/* The first and the one after the last window that cover an input coordinate. */
static int32_t first_window(int32_t input, int32_t stride, int32_t pad, int32_t kernel) {
  return tp_max_s32(input + pad - kernel + stride, 0) / stride;
}

static int32_t end_window(int32_t input, int32_t stride, int32_t pad, int32_t count) {
  return tp_min_s32((input + pad) / stride + 1, count);
}

static int32_t window_factor(int32_t factor_shift, int32_t count) {
  const uint32_t twice = (uint32_t)2 << factor_shift;
  return tp_min_s32((int32_t)((twice + (uint32_t)count) / (2u * (uint32_t)count)), INT16_MAX);
}

/* acc[0..count) = sum of d_output times the windows' weights at input (y, x), channels c onwards. */
static void gather_windows(const tp_average_pool_backward_params *params, const tp_bfp *d_output, int32_t narrow,
                           int32_t y, int32_t x, int32_t c, int32_t count, int32_t *acc) {
  const tp_window *window = &params->window;
  const int32_t end_y = end_window(y, window->stride_h, window->pad_top, window->output_h);
  const int32_t end_x = end_window(x, window->stride_w, window->pad_left, window->output_w);
  for (int32_t i = 0; i < count; i++) {
    acc[i] = 0;
  }
  for (int32_t wy = first_window(y, window->stride_h, window->pad_top, window->kernel_h); wy < end_y; wy++) {
    for (int32_t wx = first_window(x, window->stride_w, window->pad_left, window->kernel_w); wx < end_x; wx++) {
      const int32_t taps = taps_inside(rows_of(window, wy), columns_of(window, wx));
      const int32_t factor = window_factor(params->factor_shift, taps);
      const tp_mantissa *gradient = d_output->mantissa + (wy * window->output_w + wx) * window->output_c + c;
      for (int32_t i = 0; i < count; i++) {
        acc[i] += tp_round_shift_s32(gradient[i], narrow) * factor;
      }
    }
  }
}

void tp_average_pool_backward_s16(const tp_average_pool_backward_params *params, const tp_bfp *d_output,
                                  tp_bfp *d_input) {
  const tp_window *window = &params->window;
  const int32_t narrow = tp_accumulator_shift(d_output->peak, params->l1);
  tp_narrowing to = tp_narrow_within(tp_round_shift_s64(d_output->peak, narrow) * params->l1);
  do {
    tp_mantissa *target = d_input->mantissa;
    for (int32_t y = 0; y < window->input_h; y++) {
      for (int32_t x = 0; x < window->input_w; x++) {
        for (int32_t c = 0; c < window->input_c; c += BLOCK) {
          int32_t acc[BLOCK];
          const int32_t count = tp_min_s32(BLOCK, window->input_c - c);
          gather_windows(params, d_output, narrow, y, x, c, count, acc);
          for (int32_t i = 0; i < count; i++) {
            tp_put_mantissa(&to, acc[i], target++);
          }
        }
      }
    }
  } while (tp_next_pass(&to));
  tp_finish(&to, d_output->exponent + narrow - params->factor_shift, d_input);
}

/* The smallest shift that keeps the sum of `overlap` rounded mantissas inside a mantissa. */
static int32_t overlap_shift(int32_t peak, int32_t overlap) {
  int32_t shift = 0;
  while (tp_round_shift_s32(peak, shift) * overlap > TP_BFP_MAX) {
    shift++;
  }
  return shift;
}

void tp_max_pool_backward_s16(const tp_max_pool_backward_params *params, const tp_bfp *d_output, const int8_t *input,
                              tp_bfp *d_input) {
  const tp_window *window = &params->window;
  const int32_t size = window->input_h * window->input_w * window->input_c;
  const int32_t shift = overlap_shift(d_output->peak, params->overlap);
  const tp_mantissa *gradient = d_output->mantissa;
  memset(d_input->mantissa, 0, (size_t)size * sizeof *d_input->mantissa);
  for (int32_t output_y = 0; output_y < window->output_h; output_y++) {
    const tp_taps rows = rows_of(window, output_y);
    for (int32_t output_x = 0; output_x < window->output_w; output_x++) {
      const tp_taps columns = columns_of(window, output_x);
      for (int32_t c = 0; c < window->input_c; c++) {
        tp_mantissa *target = d_input->mantissa + first_largest(window, input, rows, columns, c);
        *target = (tp_mantissa)(*target + tp_round_shift_s32(*gradient++, shift));
      }
    }
  }
  int32_t peak = 0;
  for (int32_t i = 0; i < size; i++) {
    peak = tp_max_s32(peak, tp_abs_s32(d_input->mantissa[i]));
  }
  d_input->exponent = d_output->exponent + shift;
  d_input->peak = peak;
}
