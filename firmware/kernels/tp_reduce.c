#include "tinypeft/tp_arithmetic.h"
#include "tinypeft/tp_axes.h"
#include "tinypeft/tp_kernels_reduce.h"

/* The offset of the first extreme element. */
static int32_t first_extreme(const tp_axes *axes, const int8_t *x, int32_t sign) {
  int32_t best = 0;
  int32_t largest = x[0] * sign;
  for (int32_t i0 = 0; i0 < axes->n0; i0++) {
    for (int32_t i1 = 0; i1 < axes->n1; i1++) {
      int32_t offset = i0 * axes->s0 + i1 * axes->s1;
      for (int32_t i2 = 0; i2 < axes->n2; i2++) {
        const int32_t value = x[offset] * sign;
        if (value > largest) {
          largest = value;
          best = offset;
        }
        offset += axes->s2;
      }
    }
  }
  return best;
}

void tp_reduce_extreme_s8(const tp_reduce_extreme_params *params, const int8_t *input, int8_t *output) {
  const int32_t results = tp_axes_size(&params->kept);
  tp_walk walk = {0, 0, 0};
  for (int32_t i = 0; i < results; i++) {
    const int8_t *x = input + walk.offset;
    output[i] = x[first_extreme(&params->reduced, x, params->sign)];
    tp_walk_on(&params->kept, &walk);
  }
}

void tp_reduce_extreme_backward_s16(const tp_reduce_extreme_params *params, const tp_bfp *d_output,
                                    const int8_t *input, tp_bfp *d_input) {
  const int32_t results = tp_axes_size(&params->kept);
  const int32_t size = results * tp_axes_size(&params->reduced);
  tp_walk walk = {0, 0, 0};
  memset(d_input->mantissa, 0, (size_t)size * sizeof *d_input->mantissa);
  for (int32_t i = 0; i < results; i++) {
    const int32_t at = walk.offset + first_extreme(&params->reduced, input + walk.offset, params->sign);
    d_input->mantissa[at] = d_output->mantissa[i];
    tp_walk_on(&params->kept, &walk);
  }
  d_input->exponent = d_output->exponent;
  d_input->peak = d_output->peak;
}
