#include "tinypeft/tp_arithmetic.h"
#include "tinypeft/tp_kernels.h"

/* A row whose scale exceeds the base layer's by no more than rounding keeps that. */
#define SAME_SCALE 1.000001f
/* Largest |bias| in steps of the accumulator; float32 masters tell its steps apart. */
#define BIAS_LIMIT (1 << 22)
/* Largest |accumulator|: int32 with room for a zero point and the least that a LoRA may add. */
#define ACCUMULATOR_LIMIT (TP_REQUANTIZE_MAX - 256)

/* x rounded up to 17 bits, so that its products with int8 are exact and a restored row finds the same scale. */
static float short_mantissa(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  bits = (bits + 0x7Fu) & ~(uint32_t)0x7Fu;
  memcpy(&x, &bits, sizeof x);
  return x;
}

/* The largest sum of |rows| over one input channel. Rows that read the same channels follow each other. */
static int32_t input_channel_l1(const tp_sparse_quantize_params *params, const int8_t *rows) {
  int32_t largest = 0;
  int32_t end = 0;
  for (int32_t first = 0; first < params->rows; first = end) {
    end = params->first_channel == NULL ? params->rows : first + 1;
    while (end < params->rows && params->first_channel[end] == params->first_channel[first]) {
      end++;
    }
    for (int32_t k = 0; k < params->filter_c; k++) {
      int32_t sum = 0;
      for (int32_t i = first * params->row_size + k; i < end * params->row_size; i += params->filter_c) {
        sum += tp_abs_s32(rows[i]);
      }
      largest = tp_max_s32(largest, sum);
    }
  }
  return largest;
}

/* Scales as int16 multipliers of one exponent, and the norm. */
static void derive_backward(const tp_sparse_quantize_params *params, const int8_t *rows, const float *scale,
                            int16_t *fold_multiplier, int32_t *fold_exponent, int32_t *l1) {
  float largest = 0.0f;
  for (int32_t r = 0; r < params->rows; r++) {
    largest = scale[r] > largest ? scale[r] : largest;
  }
  const int32_t exponent = tp_float_exponent(largest) - 14;
  for (int32_t r = 0; r < params->rows; r++) {
    const float mantissa = scale[r] * tp_exp2i(-exponent);
    fold_multiplier[r] = (int16_t)tp_min_s32(tp_round_to_s32(mantissa), INT16_MAX);
  }
  fold_exponent[0] = exponent;
  l1[0] = input_channel_l1(params, rows);
}

void tp_sparse_quantize_f32(const tp_sparse_quantize_params *params, const float *master_rows,
                            const float *master_bias, int8_t *rows, int32_t *bias, int32_t *multiplier, int8_t *shift,
                            float *scale, int16_t *fold_multiplier, int32_t *fold_exponent, int32_t *l1) {
  for (int32_t r = 0; r < params->rows; r++) {
    const float *master = master_rows + r * params->row_size;
    int8_t *row = rows + r * params->row_size;
    const float needed = tp_peak_of_masters(master, params->row_size) / 127.0f;
    const int grown = needed > params->filter_scale[r] * SAME_SCALE;
    scale[r] = grown ? short_mantissa(needed) : params->filter_scale[r];
    int32_t row_l1 = 0;
    for (int32_t k = 0; k < params->row_size; k++) {
      row[k] = (int8_t)tp_clamp_s32(tp_round_to_s32(tp_limit_master(master[k]) / scale[r]), -127, 127);
      row_l1 += tp_abs_s32(row[k]);
    }
    const float unit = params->input_scale * scale[r];
    const int32_t limit = tp_min_s32(BIAS_LIMIT, ACCUMULATOR_LIMIT - row_l1 * params->input_range);
    bias[r] = tp_clamp_s32(tp_round_to_s32(tp_limit_master(master_bias[r]) / unit), -limit, limit);
    if (grown) {
      shift[r] = tp_requantize_multiplier(unit / params->output_scale, &multiplier[r]);
    } else {
      multiplier[r] = params->base_multiplier[r];
      shift[r] = params->base_shift[r];
    }
  }
  derive_backward(params, rows, scale, fold_multiplier, fold_exponent, l1);
}

void tp_sparse_restore_f32(const tp_sparse_quantize_params *params, const int8_t *rows, const int32_t *bias,
                           const float *scale, float *master_rows, float *master_bias, int16_t *fold_multiplier,
                           int32_t *fold_exponent, int32_t *l1) {
  for (int32_t r = 0; r < params->rows; r++) {
    for (int32_t k = r * params->row_size; k < (r + 1) * params->row_size; k++) {
      master_rows[k] = (float)rows[k] * scale[r];
    }
    const float unit = params->input_scale * scale[r];
    master_bias[r] = (float)bias[r] * unit;
  }
  derive_backward(params, rows, scale, fold_multiplier, fold_exponent, l1);
}

void tp_initialize_from_channels_s8(const tp_initialize_from_channels_params *params, const int8_t *weights,
                                    float *master) {
  for (int32_t r = 0; r < params->rows; r++) {
    const int8_t *element = weights + params->channel[r] * params->channel_stride;
    for (int32_t i = 0; i < params->row_size; i++) {
      *master++ = (float)element[i * params->element_stride] * params->unit[r];
    }
  }
}

void tp_initialize_from_channels_s32(const tp_initialize_from_channels_params *params, const int32_t *weights,
                                     float *master) {
  for (int32_t r = 0; r < params->rows; r++) {
    const int32_t *element = weights + params->channel[r] * params->channel_stride;
    for (int32_t i = 0; i < params->row_size; i++) {
      *master++ = (float)element[i * params->element_stride] * params->unit[r];
    }
  }
}
