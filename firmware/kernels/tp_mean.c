#include "tinypeft/tp_arithmetic.h"
#include "tinypeft/tp_axes.h"
#include "tinypeft/tp_kernels_reduce.h"

void tp_mean_s8(const tp_mean_params *params, const int8_t *input, int8_t *output) {
  for (int32_t c = 0; c < params->channels; c++) {
    int32_t sum = params->input_offset * params->count;
    const int8_t *x = input + c;
    for (int32_t p = 0; p < params->count; p++) {
      sum += *x;
      x += params->channels;
    }
    const int32_t result = tp_requantize(sum, params->multiplier, params->shift) + params->output_offset;
    output[c] = (int8_t)tp_clamp_s32(result, INT8_MIN, INT8_MAX);
  }
}

void tp_mean_backward_s16(const tp_mean_backward_params *params, const tp_bfp16 *d_output, tp_bfp16 *d_input) {
  const int32_t shift = tp_narrow_shift((int64_t)d_output->peak * params->multiplier);
  int16_t *first = d_input->mantissa;
  int32_t peak = 0;
  for (int32_t c = 0; c < params->channels; c++) {
    const int32_t scaled = tp_round_shift_s32(d_output->mantissa[c] * params->multiplier, shift);
    first[c] = (int16_t)scaled;
    peak = tp_max_s32(peak, tp_abs_s32(scaled));
  }
  for (int32_t p = 1; p < params->count; p++) {
    memcpy(first + p * params->channels, first, (size_t)params->channels * sizeof *first);
  }
  d_input->exponent = d_output->exponent + params->exponent + shift;
  d_input->peak = peak;
}

static int32_t sum_over(const tp_axes *axes, const int8_t *x) {
  int32_t sum = 0;
  for (int32_t i0 = 0; i0 < axes->n0; i0++) {
    for (int32_t i1 = 0; i1 < axes->n1; i1++) {
      const int8_t *element = x + i0 * axes->s0 + i1 * axes->s1;
      for (int32_t i2 = 0; i2 < axes->n2; i2++) {
        sum += *element;
        element += axes->s2;
      }
    }
  }
  return sum;
}

void tp_mean_axes_s8(const tp_mean_axes_params *params, const int8_t *input, int8_t *output) {
  const int32_t results = tp_axes_size(&params->kept);
  const int32_t offset = params->input_offset * tp_axes_size(&params->reduced);
  tp_walk walk = {0, 0, 0};
  for (int32_t i = 0; i < results; i++) {
    const int32_t sum = sum_over(&params->reduced, input + walk.offset) + offset;
    const int32_t result = tp_requantize(sum, params->multiplier, params->shift) + params->output_offset;
    output[i] = (int8_t)tp_clamp_s32(result, INT8_MIN, INT8_MAX);
    tp_walk_on(&params->kept, &walk);
  }
}

void tp_mean_axes_backward_s16(const tp_mean_axes_backward_params *params, const tp_bfp16 *d_output,
                               tp_bfp16 *d_input) {
  const int32_t shift = tp_narrow_shift((int64_t)d_output->peak * params->multiplier);
  const int32_t results = tp_axes_size(&params->kept);
  const int32_t count = tp_axes_size(&params->reduced);
  int32_t peak = 0;
  tp_walk walk = {0, 0, 0};
  for (int32_t i = 0; i < results; i++) {
    const int32_t scaled = tp_round_shift_s32(d_output->mantissa[i] * params->multiplier, shift);
    tp_walk within = {walk.offset, 0, 0};
    for (int32_t p = 0; p < count; p++) {
      d_input->mantissa[within.offset] = (int16_t)scaled;
      tp_walk_on(&params->reduced, &within);
    }
    peak = tp_max_s32(peak, tp_abs_s32(scaled));
    tp_walk_on(&params->kept, &walk);
  }
  d_input->exponent = d_output->exponent + params->exponent + shift;
  d_input->peak = peak;
}
