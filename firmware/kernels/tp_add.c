#include "tinypeft/tp_arithmetic.h"
#include "tinypeft/tp_kernels_binary.h"

static inline int32_t first_term(const tp_add_params *params, int32_t x) {
  const int32_t shifted = (x + params->input1_offset) * ((int32_t)1 << params->left_shift);
  return tp_requantize(shifted, params->input1_multiplier, params->input1_shift);
}

static inline int32_t second_term(const tp_add_params *params, int32_t x) {
  const int32_t shifted = (x + params->input2_offset) * ((int32_t)1 << params->left_shift);
  return tp_requantize(shifted, params->input2_multiplier, params->input2_shift);
}

static inline int8_t total(const tp_add_params *params, int32_t sum) {
  const int32_t result = tp_requantize(sum, params->output_multiplier, params->output_shift) + params->output_offset;
  return (int8_t)tp_clamp_s32(result, params->activation_min, params->activation_max);
}

/* sign 1 adds, -1 subtracts */
static inline void sum_row(const tp_add_params *params, int32_t sign, const tp_loop *row, const int8_t *input1,
                           const int8_t *input2, int8_t *output) {
  if (row->stride1 == 0) {
    const int32_t term = first_term(params, *input1);
    for (int32_t i = 0; i < row->extent; i++) {
      output[i] = total(params, term + sign * second_term(params, input2[i]));
    }
  } else if (row->stride2 == 0) {
    const int32_t term = sign * second_term(params, *input2);
    for (int32_t i = 0; i < row->extent; i++) {
      output[i] = total(params, first_term(params, input1[i]) + term);
    }
  } else {
    for (int32_t i = 0; i < row->extent; i++) {
      output[i] = total(params, first_term(params, input1[i]) + sign * second_term(params, input2[i]));
    }
  }
}

static void add_row(const void *params, const tp_loop *row, const int8_t *input1, const int8_t *input2,
                    int8_t *output) {
  sum_row(params, 1, row, input1, input2, output);
}

static void sub_row(const void *params, const tp_loop *row, const int8_t *input1, const int8_t *input2,
                    int8_t *output) {
  sum_row(params, -1, row, input1, input2, output);
}

void tp_add_s8(const tp_add_params *params, const int8_t *input1, const int8_t *input2, int8_t *output) {
  tp_for_each_row(&params->broadcast, add_row, params, input1, input2, output);
}

void tp_sub_s8(const tp_add_params *params, const int8_t *input1, const int8_t *input2, int8_t *output) {
  tp_for_each_row(&params->broadcast, sub_row, params, input1, input2, output);
}
