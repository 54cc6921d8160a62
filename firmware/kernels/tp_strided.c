#include <string.h>

#include "tinypeft/tp_arithmetic.h"
#include "tinypeft/tp_kernels_layout.h"

/* Where the run of the last axis behind the one at `place` begins; -1 behind the last run. `index` starts as zeros. */
static int32_t next_run(const tp_strided *strided, int32_t *index, int32_t place) {
  for (int32_t axis = strided->rank - 2; axis >= 0; axis--) {
    place += strided->stride[axis];
    index[axis]++;
    if (index[axis] < strided->extent[axis]) {
      return place;
    }
    place -= strided->extent[axis] * strided->stride[axis];
    index[axis] = 0;
  }
  return -1;
}

void tp_strided_copy_s8(const tp_strided *params, const int8_t *input, int8_t *output) {
  int32_t index[TP_RANK_MAX] = {0};
  const int32_t count = params->extent[params->rank - 1];
  const int32_t stride = params->stride[params->rank - 1];
  for (int32_t place = params->offset; place >= 0; place = next_run(params, index, place)) {
    if (stride == 1) {
      memmove(output, input + place, (size_t)count);
    } else {
      for (int32_t i = 0; i < count; i++) {
        output[i] = input[place + i * stride];
      }
    }
    output += count;
  }
}

void tp_strided_copy_s16(const tp_strided *params, const tp_bfp *d_output, tp_bfp *d_input) {
  int32_t index[TP_RANK_MAX] = {0};
  const int32_t count = params->extent[params->rank - 1];
  const int32_t stride = params->stride[params->rank - 1];
  tp_mantissa *target = d_input->mantissa;
  int32_t peak = 0;
  for (int32_t place = params->offset; place >= 0; place = next_run(params, index, place)) {
    for (int32_t i = 0; i < count; i++) {
      const tp_mantissa mantissa = d_output->mantissa[place + i * stride];
      peak = tp_max_s32(peak, tp_abs_s32(mantissa));
      *target++ = mantissa;
    }
  }
  d_input->exponent = d_output->exponent;
  d_input->peak = peak;
}

void tp_pad_s8(const tp_strided_fill_params *params, const int8_t *input, int8_t *output) {
  int32_t index[TP_RANK_MAX] = {0};
  const int32_t count = params->inner.extent[params->inner.rank - 1];
  const int32_t stride = params->inner.stride[params->inner.rank - 1];
  memset(output, params->value, (size_t)params->size);
  for (int32_t place = params->inner.offset; place >= 0; place = next_run(&params->inner, index, place)) {
    if (stride == 1) {
      memcpy(output + place, input, (size_t)count);
    } else {
      for (int32_t i = 0; i < count; i++) {
        output[place + i * stride] = input[i];
      }
    }
    input += count;
  }
}

void tp_strided_scatter_s16(const tp_strided_fill_params *params, const tp_bfp *d_output, tp_bfp *d_input) {
  int32_t index[TP_RANK_MAX] = {0};
  const int32_t count = params->inner.extent[params->inner.rank - 1];
  const int32_t stride = params->inner.stride[params->inner.rank - 1];
  const tp_mantissa *source = d_output->mantissa;
  memset(d_input->mantissa, 0, (size_t)params->size * sizeof *d_input->mantissa);
  for (int32_t place = params->inner.offset; place >= 0; place = next_run(&params->inner, index, place)) {
    for (int32_t i = 0; i < count; i++) {
      d_input->mantissa[place + i * stride] = *source++;
    }
  }
  d_input->exponent = d_output->exponent;
  d_input->peak = d_output->peak;
}
