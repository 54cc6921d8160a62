#include "tinypeft/tp_arithmetic.h"
#include "tinypeft/tp_axes.h"
#include "tinypeft/tp_kernels_reduce.h"
#include "tinypeft/tp_narrowing.h"

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

void tp_mean_backward_s16(const tp_mean_backward_params *params, const tp_bfp *d_output, tp_bfp *d_input) {
  tp_narrowing to = tp_narrow_within((int64_t)d_output->peak * params->multiplier);
  tp_mantissa *first = d_input->mantissa;
  do {
    for (int32_t c = 0; c < params->channels; c++) {
      tp_put_mantissa(&to, d_output->mantissa[c] * params->multiplier, &first[c]);
    }
  } while (tp_next_pass(&to));
  for (int32_t p = 1; p < params->count; p++) {
    memcpy(first + p * params->channels, first, (size_t)params->channels * sizeof *first);
  }
  tp_finish(&to, d_output->exponent + params->exponent, d_input);
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

void tp_mean_axes_backward_s16(const tp_mean_axes_backward_params *params, const tp_bfp *d_output,
                               tp_bfp *d_input) {
  tp_narrowing to = tp_narrow_within((int64_t)d_output->peak * params->multiplier);
  const int32_t results = tp_axes_size(&params->kept);
  const int32_t count = tp_axes_size(&params->reduced);
  do {
    tp_walk walk = {0, 0, 0};
    for (int32_t i = 0; i < results; i++) {
      tp_walk within = {walk.offset, 0, 0};
      for (int32_t p = 0; p < count; p++) {
        tp_put_mantissa(&to, d_output->mantissa[i] * params->multiplier, &d_input->mantissa[within.offset]);
        tp_walk_on(&params->reduced, &within);
      }
      tp_walk_on(&params->kept, &walk);
    }
  } while (tp_next_pass(&to));
  tp_finish(&to, d_output->exponent + params->exponent, d_input);
}
