#include "tinypeft/tp_arithmetic.h"
#include "tinypeft/tp_kernels.h"

/* The output coordinate whose window covers `input` with `tap`, or -1. */
static int32_t covering_output(int32_t input, int32_t tap, int32_t stride, int32_t pad, int32_t dilation,
                               int32_t outputs) {
  const int32_t distance = input + pad - tap * dilation;
  if (distance < 0 || distance % stride != 0 || distance / stride >= outputs) {
    return -1;
  }
  return distance / stride;
}

/* Gather the mantissas of every output that (y,x) contributes to: tap by tap, (KH,KW,Cout), zero where there is none. */
static void gather_column(const tp_window *w, const int16_t *g, int32_t y, int32_t x, int32_t narrow, int16_t *column) {
  for (int32_t i = 0; i < w->kernel_h; i++) {
    const int32_t oy = covering_output(y, i, w->stride_h, w->pad_top, w->dilation_h, w->output_h);
    for (int32_t j = 0; j < w->kernel_w; j++) {
      const int32_t ox = covering_output(x, j, w->stride_w, w->pad_left, w->dilation_w, w->output_w);
      if (oy < 0 || ox < 0) {
        memset(column, 0, (size_t)w->output_c * sizeof *column);
      } else {
        const int16_t *source = g + (oy * w->output_w + ox) * w->output_c;
        for (int32_t c = 0; c < w->output_c; c++) {
          column[c] = (int16_t)tp_round_shift_s32(source[c], narrow);
        }
      }
      column += w->output_c;
    }
  }
}

/* sum over taps and output channels of column * filter[.,.,.,input_channel]. */
static int32_t column_dot(const tp_window *w, const int16_t *column, const int8_t *filter) {
  const int32_t taps = w->kernel_h * w->kernel_w;
  int32_t acc = 0;
  for (int32_t t = 0; t < taps; t++) {
    const int8_t *f = filter + t * w->input_c;
    for (int32_t c = 0; c < w->output_c; c++) {
      acc += (int32_t)column[t * w->output_c + c] * f[c * taps * w->input_c];
    }
  }
  return acc;
}

void tp_conv_backward_input_s16(const tp_conv_backward_params *params, const tp_bfp16 *d_acc, const int8_t *filter,
                                const int32_t *l1, const tp_bfp16 *addend, tp_bfp16 *d_input, void *column) {
  const tp_window *w = &params->window;
  const int32_t norm = l1 != NULL ? l1[0] : params->l1;
  const int32_t narrow = tp_accumulator_shift(d_acc->peak, norm);
  const int64_t bound = tp_round_shift_s64(d_acc->peak, narrow) * norm;
  int32_t exponent = d_acc->exponent + narrow + tp_narrow_shift(bound);
  if (addend != NULL) {
    exponent = tp_common_exponent(bound, d_acc->exponent + narrow, addend->peak, addend->exponent);
  }
  const int32_t shift = exponent - d_acc->exponent - narrow;
  const int32_t addend_shift = addend != NULL ? exponent - addend->exponent : 0;
  int32_t peak = 0;
  for (int32_t y = 0; y < w->input_h; y++) {
    for (int32_t x = 0; x < w->input_w; x++) {
      const int32_t position = (y * w->input_w + x) * w->input_c;
      gather_column(w, d_acc->mantissa, y, x, narrow, column);
      for (int32_t k = 0; k < w->input_c; k++) {
        int64_t value = tp_round_shift_s64(column_dot(w, column, filter + k), shift);
        if (addend != NULL) {
          value += tp_round_shift_s64(addend->mantissa[position + k], addend_shift);
        }
        peak = tp_max_s32(peak, tp_abs_s32((int32_t)value));
        d_input->mantissa[position + k] = (int16_t)value;
      }
    }
  }
  d_input->exponent = exponent;
  d_input->peak = peak;
}

void tp_depthwise_conv_backward_input_s16(const tp_conv_backward_params *params, const tp_bfp16 *d_acc,
                                          const int8_t *filter, tp_bfp16 *d_input, void *rows) {
  const tp_window *w = &params->window;
  const int32_t depth_multiplier = w->output_c / w->input_c;
  const int32_t row_size = w->output_w * w->output_c;
  const int32_t kept = (w->kernel_h - 1) * w->dilation_h + 1;
  const int in_place = d_input->mantissa == d_acc->mantissa;
  int16_t *ring = rows;
  const int32_t narrow = tp_accumulator_shift(d_acc->peak, params->l1);
  const int32_t shift = tp_narrow_shift(tp_round_shift_s64(d_acc->peak, narrow) * params->l1);
  int32_t peak = 0;
  int32_t copied = 0;
  for (int32_t y = 0; y < w->input_h; y++) {
    while (in_place && copied < w->output_h && copied <= y + w->pad_top) {
      memcpy(ring + (copied % kept) * row_size, d_acc->mantissa + copied * row_size, (size_t)row_size * sizeof *ring);
      copied++;
    }
    for (int32_t x = 0; x < w->input_w; x++) {
      for (int32_t k = 0; k < w->input_c; k++) {
        int32_t acc = 0;
        for (int32_t i = 0; i < w->kernel_h; i++) {
          const int32_t oy = covering_output(y, i, w->stride_h, w->pad_top, w->dilation_h, w->output_h);
          if (oy < 0) {
            continue;
          }
          const int16_t *row = in_place ? ring + (oy % kept) * row_size : d_acc->mantissa + oy * row_size;
          for (int32_t j = 0; j < w->kernel_w; j++) {
            const int32_t ox = covering_output(x, j, w->stride_w, w->pad_left, w->dilation_w, w->output_w);
            if (ox < 0) {
              continue;
            }
            for (int32_t m = k * depth_multiplier; m < (k + 1) * depth_multiplier; m++) {
              const int32_t mantissa = tp_round_shift_s32(row[ox * w->output_c + m], narrow);
              acc += mantissa * filter[(i * w->kernel_w + j) * w->output_c + m];
            }
          }
        }
        const int32_t value = tp_round_shift_s32(acc, shift);
        peak = tp_max_s32(peak, tp_abs_s32(value));
        d_input->mantissa[(y * w->input_w + x) * w->input_c + k] = (int16_t)value;
      }
    }
  }
  d_input->exponent = d_acc->exponent + narrow + shift;
  d_input->peak = peak;
}

void tp_conv_backward_filter_f32(const tp_conv_backward_filter_params *params, const tp_bfp16 *d_output,
                                 const int8_t *input, const float *divisor, float *d_filter) {
  const tp_window *w = &params->window;
  const float scale = divisor != NULL ? params->input_scale / divisor[0] : params->input_scale;
  for (int32_t c = 0; c < w->output_c; c++) {
    for (int32_t i = 0; i < w->kernel_h; i++) {
      for (int32_t j = 0; j < w->kernel_w; j++) {
        for (int32_t k = 0; k < w->input_c; k++) {
          int64_t sum = 0;
          for (int32_t oy = 0; oy < w->output_h; oy++) {
            const int32_t y = oy * w->stride_h - w->pad_top + i * w->dilation_h;
            if (y < 0 || y >= w->input_h) {
              continue;
            }
            for (int32_t ox = 0; ox < w->output_w; ox++) {
              const int32_t x = ox * w->stride_w - w->pad_left + j * w->dilation_w;
              if (x < 0 || x >= w->input_w) {
                continue;
              }
              const int32_t value = input[(y * w->input_w + x) * w->input_c + k] + params->input_offset;
              sum += (int32_t)d_output->mantissa[(oy * w->output_w + ox) * w->output_c + c] * value;
            }
          }
          *d_filter++ = tp_wide_to_f32(sum, d_output->exponent) * scale;
        }
      }
    }
  }
}

void tp_bias_backward_f32(const tp_bias_backward_params *params, const tp_bfp16 *d_output, float *d_bias) {
  for (int32_t c = 0; c < params->channels; c++) {
    int64_t sum = 0;
    for (int32_t p = 0; p < params->positions; p++) {
      sum += d_output->mantissa[p * params->channels + c];
    }
    d_bias[c] = tp_wide_to_f32(sum, d_output->exponent);
  }
}

void tp_gradient_add_s16(const tp_gradient_add_params *params, const tp_bfp16 *a, const tp_bfp16 *b, tp_bfp16 *sum) {
  const int32_t exponent = tp_common_exponent(a->peak, a->exponent, b->peak, b->exponent);
  const int32_t shift_a = exponent - a->exponent;
  const int32_t shift_b = exponent - b->exponent;
  int32_t peak = 0;
  for (int32_t i = 0; i < params->size; i++) {
    const int32_t value =
        (int32_t)(tp_round_shift_s64(a->mantissa[i], shift_a) + tp_round_shift_s64(b->mantissa[i], shift_b));
    peak = tp_max_s32(peak, tp_abs_s32(value));
    sum->mantissa[i] = (int16_t)value;
  }
  sum->exponent = exponent;
  sum->peak = peak;
}
