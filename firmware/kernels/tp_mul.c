#include "tinypeft/tp_arithmetic.h"
#include "tinypeft/tp_kernels_binary.h"

static void mul_row(const void *context, const tp_loop *row, const int8_t *input1, const int8_t *input2,
                    int8_t *output) {
  const tp_mul_params *params = context;
  for (int32_t i = 0; i < row->extent; i++) {
    const int32_t product = (*input1 + params->input1_offset) * (*input2 + params->input2_offset);
    const int32_t scaled = tp_requantize(product, params->output_multiplier, params->output_shift);
    const int32_t result = scaled + params->output_offset;
    output[i] = (int8_t)tp_clamp_s32(result, params->activation_min, params->activation_max);
    input1 += row->stride1;
    input2 += row->stride2;
  }
}

void tp_mul_s8(const tp_mul_params *params, const int8_t *input1, const int8_t *input2, int8_t *output) {
  tp_for_each_row(&params->broadcast, mul_row, params, input1, input2, output);
}

static inline int32_t first_term(const tp_squared_difference_params *params, int32_t x) {
  const int32_t shifted = (x + params->input1_offset) * ((int32_t)1 << params->left_shift);
  return tp_requantize(shifted, params->input1_multiplier, params->input1_shift);
}

static inline int32_t second_term(const tp_squared_difference_params *params, int32_t x) {
  const int32_t shifted = (x + params->input2_offset) * ((int32_t)1 << params->left_shift);
  return tp_requantize(shifted, params->input2_multiplier, params->input2_shift);
}

static inline int8_t squared(const tp_squared_difference_params *params, int32_t difference) {
  const int32_t scaled = tp_requantize(difference * difference, params->output_multiplier, params->output_shift);
  return (int8_t)tp_clamp_s32(scaled + params->output_offset, INT8_MIN, INT8_MAX);
}

static void squared_difference_row(const void *context, const tp_loop *row, const int8_t *input1, const int8_t *input2,
                                   int8_t *output) {
  const tp_squared_difference_params *params = context;
  if (row->stride1 == 0) {
    const int32_t term = first_term(params, *input1);
    for (int32_t i = 0; i < row->extent; i++) {
      output[i] = squared(params, term - second_term(params, input2[i]));
    }
  } else if (row->stride2 == 0) {
    const int32_t term = second_term(params, *input2);
    for (int32_t i = 0; i < row->extent; i++) {
      output[i] = squared(params, first_term(params, input1[i]) - term);
    }
  } else {
    for (int32_t i = 0; i < row->extent; i++) {
      output[i] = squared(params, first_term(params, input1[i]) - second_term(params, input2[i]));
    }
  }
}

void tp_squared_difference_s8(const tp_squared_difference_params *params, const int8_t *input1, const int8_t *input2,
                              int8_t *output) {
  tp_for_each_row(&params->broadcast, squared_difference_row, params, input1, input2, output);
}
