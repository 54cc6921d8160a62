#include "tinypeft/tp_arithmetic.h"
#include "tinypeft/tp_kernels_binary.h"

/* How an operand is brought to the common scale. */
typedef struct {
  int32_t offset, left_shift, multiplier, shift;
} operand_scale;

static inline int32_t term_of(operand_scale scale, int32_t x) {
  const int32_t shifted = (x + scale.offset) * ((int32_t)1 << scale.left_shift);
  if (scale.shift == 0) { /* that of the larger scale's operand */
    return tp_doubling_high_scale(shifted, scale.multiplier);
  }
  return tp_requantize(shifted, scale.multiplier, scale.shift);
}

/* sign 1 adds, -1 subtracts. The parameters are read once: output might be theirs. */
static void sum_row(const tp_add_params *params, int32_t sign, const tp_loop *row, const int8_t *input1,
                    const int8_t *input2, int8_t *output) {
  const int32_t left_shift = params->left_shift;
  const operand_scale first = {params->input1_offset, left_shift, params->input1_multiplier, params->input1_shift};
  const operand_scale second = {params->input2_offset, left_shift, params->input2_multiplier, params->input2_shift};
  const int32_t output_multiplier = params->output_multiplier, output_shift = params->output_shift;
  const int32_t output_offset = params->output_offset;
  const int32_t activation_min = params->activation_min, activation_max = params->activation_max;
  const int32_t stride1 = row->stride1, stride2 = row->stride2;
  for (const int8_t *end = output + row->extent; output != end; output++) {
    const int32_t sum = term_of(first, *input1) + sign * term_of(second, *input2);
    const int32_t result = tp_requantize(sum, output_multiplier, output_shift) + output_offset;
    *output = (int8_t)tp_clamp_s32(result, activation_min, activation_max);
    input1 += stride1;
    input2 += stride2;
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
