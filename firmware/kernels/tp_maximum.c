#include "tinypeft/tp_kernels_binary.h"

static void maximum_row(const void *context, const tp_loop *row, const int8_t *input1, const int8_t *input2,
                        int8_t *output) {
  (void)context;
  for (int32_t i = 0; i < row->extent; i++) {
    output[i] = *input1 > *input2 ? *input1 : *input2;
    input1 += row->stride1;
    input2 += row->stride2;
  }
}

static void minimum_row(const void *context, const tp_loop *row, const int8_t *input1, const int8_t *input2,
                        int8_t *output) {
  (void)context;
  for (int32_t i = 0; i < row->extent; i++) {
    output[i] = *input1 < *input2 ? *input1 : *input2;
    input1 += row->stride1;
    input2 += row->stride2;
  }
}

void tp_maximum_s8(const tp_extremum_params *params, const int8_t *input1, const int8_t *input2, int8_t *output) {
  tp_for_each_row(&params->broadcast, maximum_row, params, input1, input2, output);
}

void tp_minimum_s8(const tp_extremum_params *params, const int8_t *input1, const int8_t *input2, int8_t *output) {
  tp_for_each_row(&params->broadcast, minimum_row, params, input1, input2, output);
}
