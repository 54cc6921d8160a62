#include "tinypeft/tp_arithmetic.h"
#include "tinypeft/tp_kernels.h"

/* Factors lie within 2^-6 and 2^6, and where shifts stay within [-31, 30]. */
#define FACTOR_BITS 6

static float limited_factor(float master, int32_t base_shift) {
  const float low = tp_exp2i(tp_max_s32(-FACTOR_BITS, -31 - base_shift));
  const float high = tp_exp2i(tp_min_s32(FACTOR_BITS, 30 - base_shift));
  const float factor = tp_limit_f32(master, high);
  return factor < low ? low : factor;
}

/* One over the factors, and the filter scales times them as int16 multipliers of one exponent. */
static void derive_backward(const tp_ia3_params *params, const float *factor, float *inverse, int16_t *fold_multiplier,
                            int32_t *fold_exponent) {
  float largest = 0.0f;
  for (int32_t c = 0; c < params->channels; c++) {
    const float scale = params->filter_scale[c] * factor[c];
    largest = scale > largest ? scale : largest;
    inverse[c] = 1.0f / factor[c];
  }
  const int32_t exponent = tp_float_exponent(largest) - 14;
  for (int32_t c = 0; c < params->channels; c++) {
    const float scale = params->filter_scale[c] * factor[c];
    fold_multiplier[c] = (int16_t)tp_min_s32(tp_round_to_s32(scale * tp_exp2i(-exponent)), INT16_MAX);
  }
  fold_exponent[0] = exponent;
}

void tp_ia3_quantize_f32(const tp_ia3_params *params, const float *master, int32_t *multiplier, int8_t *shift,
                         float *factor, float *inverse, int16_t *fold_multiplier, int32_t *fold_exponent) {
  for (int32_t c = 0; c < params->channels; c++) {
    const int32_t base_shift = params->base_shift[c];
    factor[c] = limited_factor(master[c], base_shift);
    const int32_t exponent = tp_float_exponent(factor[c]);
    const int32_t mantissa = (int32_t)(factor[c] * tp_exp2i(23 - exponent)); /* exact: 24 bits */
    const int64_t product = (int64_t)params->base_multiplier[c] * mantissa;
    /* rounded to 23 bits fewer it would have 32 */
    const int32_t more = product >= ((int64_t)1 << 54) - ((int64_t)1 << 22) ? 1 : 0;
    multiplier[c] = (int32_t)tp_round_shift_s64(product, 23 + more);
    shift[c] = (int8_t)(params->base_multiplier[c] > 0 ? base_shift + exponent + more : base_shift);
  }
  derive_backward(params, factor, inverse, fold_multiplier, fold_exponent);
}

void tp_ia3_restore_f32(const tp_ia3_params *params, const int32_t *multiplier, const int8_t *shift, float *master,
                        float *factor, float *inverse, int16_t *fold_multiplier, int32_t *fold_exponent) {
  for (int32_t c = 0; c < params->channels; c++) {
    const int32_t base = params->base_multiplier[c];
    const int32_t base_shift = params->base_shift[c];
    float restored = 1.0f;
    if (base > 0) {
      const int32_t below = multiplier[c] < base ? 1 : 0;
      const int32_t exponent = tp_clamp_s32(shift[c], -31, 30) - base_shift - below;
      const int64_t scaled = (int64_t)multiplier[c] * ((int32_t)1 << (23 + below));
      restored = (float)((scaled + base / 2) / base) * tp_exp2i(exponent - 23);
    }
    factor[c] = limited_factor(restored, base_shift);
    master[c] = factor[c];
  }
  derive_backward(params, factor, inverse, fold_multiplier, fold_exponent);
}

int tp_ia3_gradient_s32(const void *params, const tp_bfp *d_output, const void *source, int32_t row, int32_t column,
                        int32_t shift, int32_t *gradient) {
  const tp_ia3_gradient_params *p = params;
  int32_t any = 0;
  (void)row, (void)column;
  for (int32_t c = 0; c < p->channels; c++) {
    const tp_mantissa *g = d_output->mantissa + c;
    const int8_t *output = (const int8_t *)source + c;
    int64_t sum = 0;
    for (int32_t i = 0; i < p->positions; i++) {
      sum += *g * (*output + p->source_offset);
      g += p->channels;
      output += p->channels;
    }
    gradient[c] = (int32_t)tp_round_shift_s64(sum, shift);
    any |= gradient[c];
  }
  return any != 0;
}
