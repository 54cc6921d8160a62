#include "tinypeft/tp_accumulate.h"
#include "tinypeft/tp_kernels.h"

void tp_lora_down_s8(const tp_lora_down_params *params, const int8_t *input, const int8_t *lora_A,
                     const int8_t *hidden_shift, int16_t *hidden, void *column) {
  const tp_window *w = &params->window;
  const int32_t count = w->kernel_h * w->kernel_w * w->input_c;
  for (int32_t oy = 0; oy < w->output_h; oy++) {
    for (int32_t ox = 0; ox < w->output_w; ox++) {
      tp_gather_window_s8(w, input, w->input_c, params->input_offset, oy, ox, column);
      for (int32_t r = 0; r < w->output_c; r += TP_BLOCK) {
        int32_t acc[TP_BLOCK];
        const int32_t filters = tp_min_s32(w->output_c - r, TP_BLOCK);
        tp_dot_rows_s8(column, lora_A + r * count, count, count, filters, acc);
        for (int32_t j = 0; j < filters; j++) {
          *hidden++ = (int16_t)tp_round_shift_s32(acc[j], hidden_shift[0]);
        }
      }
    }
  }
}

/* An A whose largest element is smaller is all zeros. */
#define A_MIN 9.094947e-13f /* 2^-40 */

/* A master as it is quantised: finite. */
static float limited(float x) { return tp_limit_f32(x, TP_MASTER_LIMIT); }

/* Largest |x[i]|. */
static float peak_f32(const float *x, int32_t count) {
  float peak = 0.0f;
  for (int32_t i = 0; i < count; i++) {
    const float value = limited(x[i]);
    const float magnitude = value < 0.0f ? -value : value;
    peak = magnitude > peak ? magnitude : peak;
  }
  return peak;
}

/* Largest sum of |filter| over (Cout,KH,KW) of one input channel. */
static int32_t input_channel_l1(const int8_t *filter, int32_t count, int32_t input_c) {
  int32_t largest = 0;
  for (int32_t c = 0; c < input_c; c++) {
    int32_t sum = 0;
    for (int32_t i = c; i < count; i += input_c) {
      sum += tp_abs_s32(filter[i]);
    }
    largest = tp_max_s32(largest, sum);
  }
  return largest;
}

/* Norms and units for the backward pass. */
static void derive_backward(const tp_lora_quantize_params *params, const int8_t *lora_A, const int8_t *lora_B,
                            float a_scale, int32_t hidden_shift, int32_t *l1, float *gradient_unit) {
  l1[0] = input_channel_l1(lora_A, params->rank * params->fan_in, params->input_c);
  l1[1] = input_channel_l1(lora_B, params->output_c * params->rank, params->rank);
  gradient_unit[0] = 1.0f / a_scale;
  gradient_unit[1] = a_scale * tp_exp2i(hidden_shift);
}

void tp_lora_quantize_f32(const tp_lora_quantize_params *params, const float *master_A, const float *master_B,
                          int8_t *lora_A, int8_t *hidden_shift, int8_t *lora_B, int8_t *lora_shift, float *a_scale,
                          int32_t *l1, float *gradient_unit) {
  const int32_t rank = params->rank;
  const int32_t fan_in = params->fan_in;
  const float a_peak = peak_f32(master_A, rank * fan_in);
  const float scale = a_peak >= A_MIN ? a_peak / 127.0f : 1.0f;
  int32_t row_l1 = 0;
  for (int32_t r = 0; r < rank; r++) {
    int32_t sum = 0;
    for (int32_t k = 0; k < fan_in; k++) {
      const int32_t q = tp_clamp_s32(tp_round_to_s32(limited(master_A[r * fan_in + k]) / scale), -127, 127);
      lora_A[r * fan_in + k] = (int8_t)q;
      sum += tp_abs_s32(q);
    }
    row_l1 = tp_max_s32(row_l1, sum);
  }
  const int64_t hidden_bound = (int64_t)row_l1 * params->input_range;
  const int32_t k_h = tp_narrow_shift(hidden_bound);
  const int64_t hidden_peak = tp_round_shift_s64(hidden_bound, k_h);
  const float hidden_unit = scale * tp_exp2i(k_h);
  hidden_shift[0] = (int8_t)k_h;
  a_scale[0] = scale;

  for (int32_t c = 0; c < params->output_c; c++) {
    const float *row = master_B + c * rank;
    const float factor = hidden_unit * params->b_unit[c];
    /* rounded up, so that the largest lies in [63.75, 127.5) steps: none is clipped */
    const float reach = peak_f32(row, rank) * factor;
    const float peak = reach * (257.0f / 256.0f);
    int32_t k_b = 24;
    if (peak > 0.0f) {
      k_b = tp_clamp_s32(6 - tp_float_exponent(peak), -24, 24);
    }
    for (;;) {
      const float unit = factor * tp_exp2i(k_b);
      int32_t sum = 0;
      for (int32_t r = 0; r < rank; r++) {
        const float scaled = limited(row[r]) * unit;
        lora_B[c * rank + r] = (int8_t)tp_round_to_s32(tp_limit_f32(scaled, 127.0f));
        sum += tp_abs_s32(lora_B[c * rank + r]);
      }
      if (k_b >= 24 || tp_round_shift_s64(hidden_peak * sum, k_b) <= TP_REQUANTIZE_MAX - params->acc_bound) {
        break;
      }
      k_b++;
    }
    lora_shift[c] = (int8_t)k_b;
  }
  derive_backward(params, lora_A, lora_B, scale, k_h, l1, gradient_unit);
}

void tp_lora_restore_f32(const tp_lora_quantize_params *params, const int8_t *lora_A, const int8_t *hidden_shift,
                         const int8_t *lora_B, const int8_t *lora_shift, const float *a_scale, float *master_A,
                         float *master_B, int32_t *l1, float *gradient_unit) {
  const float hidden_unit = a_scale[0] * tp_exp2i(hidden_shift[0]);
  for (int32_t i = 0; i < params->rank * params->fan_in; i++) {
    master_A[i] = (float)lora_A[i] * a_scale[0];
  }
  for (int32_t c = 0; c < params->output_c; c++) {
    const float factor = hidden_unit * params->b_unit[c];
    const float unit = factor * tp_exp2i(lora_shift[c]);
    for (int32_t r = 0; r < params->rank; r++) {
      master_B[c * params->rank + r] = (float)lora_B[c * params->rank + r] / unit;
    }
  }
  derive_backward(params, lora_A, lora_B, a_scale[0], hidden_shift[0], l1, gradient_unit);
}

void tp_lora_backward_hidden_s16(const tp_lora_backward_params *params, const tp_bfp16 *d_acc, const int8_t *lora_B,
                                 const int8_t *lora_shift, const int8_t *hidden_shift, const int32_t *l1,
                                 tp_bfp16 *d_hidden, void *scratch) {
  int16_t *shifted = scratch;
  int32_t shift_min = lora_shift[0];
  for (int32_t c = 1; c < params->output_c; c++) {
    shift_min = tp_min_s32(shift_min, lora_shift[c]);
  }
  const int32_t narrow = tp_accumulator_shift(d_acc->peak, l1[1]);
  const int32_t shift = tp_narrow_shift(tp_round_shift_s64(d_acc->peak, narrow) * l1[1]);
  int32_t peak = 0;
  for (int32_t p = 0; p < params->positions; p++) {
    const int16_t *g = d_acc->mantissa + p * params->output_c;
    for (int32_t c = 0; c < params->output_c; c++) {
      const int32_t down = tp_min_s32(narrow + lora_shift[c] - shift_min, 30);
      shifted[c] = (int16_t)tp_round_shift_s32(g[c], down);
    }
    for (int32_t r = 0; r < params->rank; r += TP_BLOCK) {
      int32_t acc[TP_BLOCK];
      const int32_t columns = tp_min_s32(params->rank - r, TP_BLOCK);
      tp_dot_columns_s8(shifted, lora_B + r, params->output_c, params->rank, columns, acc);
      for (int32_t j = 0; j < columns; j++) {
        const int32_t value = tp_round_shift_s32(acc[j], shift);
        peak = tp_max_s32(peak, tp_abs_s32(value));
        d_hidden->mantissa[p * params->rank + r + j] = (int16_t)value;
      }
    }
  }
  d_hidden->exponent = d_acc->exponent + narrow + shift - shift_min - hidden_shift[0];
  d_hidden->peak = peak;
}

int tp_lora_gradient_b_s32(const void *params, const tp_bfp16 *d_output, const void *source, int32_t row, int32_t shift,
                           int32_t *gradient) {
  const tp_lora_backward_params *p = params;
  int32_t any = 0;
  for (int32_t r = 0; r < p->rank; r += TP_BLOCK) {
    const int32_t columns = tp_min_s32(p->rank - r, TP_BLOCK);
    const int16_t *g = d_output->mantissa + row;
    const int16_t *hidden = (const int16_t *)source + r;
    int64_t sum[TP_BLOCK] = {0};
    for (int32_t i = 0; i < p->positions; i++) {
      const int32_t mantissa = *g;
      for (int32_t j = 0; j < columns; j++) {
        sum[j] += (int64_t)mantissa * hidden[j];
      }
      g += p->output_c;
      hidden += p->rank;
    }
    for (int32_t j = 0; j < columns; j++) {
      gradient[r + j] = (int32_t)tp_round_shift_s64(sum[j], shift);
      any |= gradient[r + j];
    }
  }
  return any != 0;
}
