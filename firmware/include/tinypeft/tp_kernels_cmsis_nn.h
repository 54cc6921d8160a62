/* Calls of Arm's CMSIS-NN, with the bits of the portable kernels, whose parameters they take.
 * Layouts: activations (H,W,C), conv filters (Cout,KH,KW,Cin), depthwise filters (KH,KW,Cout), batch 1. Tables of
 * multipliers and shifts are int32. What each is exact for, tinypeft/kernels/cmsis_nn/ proves before it makes a call.
 *
 * The size of the scratch is known to the compiler, and the library may be another than it knows: before the first call
 * each _check gives TP_ERR_SIZE where the library wants more than `scratch_bytes`, and TP_ERR_UNSUPPORTED where it was
 * built to round once. */
#ifndef TP_KERNELS_CMSIS_NN_H
#define TP_KERNELS_CMSIS_NN_H

#include "tp_kernels_binary.h"
#include "tp_kernels_conv.h"
#include "tp_kernels_pool.h"
#include "tp_kernels_softmax.h"

/* As tp_conv_s8. input_offset is 0 where bias holds input_offset * sum filter. bias is not NULL. */
void tp_conv_cmsis_nn_s8(const tp_conv_params *params, const int8_t *input, const int8_t *filter, const int32_t *bias,
                         const int32_t *multiplier, const int32_t *shift, int8_t *output, void *scratch);
tp_status tp_conv_cmsis_nn_check(const tp_conv_params *params, int32_t scratch_bytes);

/* As tp_depthwise_conv_s8. bias is not NULL. */
void tp_depthwise_conv_cmsis_nn_s8(const tp_conv_params *params, const int8_t *input, const int8_t *filter,
                                   const int32_t *bias, const int32_t *multiplier, const int32_t *shift,
                                   int8_t *output, void *scratch);
tp_status tp_depthwise_conv_cmsis_nn_check(const tp_conv_params *params, int32_t scratch_bytes);

typedef struct {
  int32_t positions; /* rows of input and output */
  int32_t input_c, output_c;
  int32_t output_offset;
  int32_t activation_min, activation_max;
  int32_t multiplier, shift; /* of all channels; not read per channel */
} tp_fully_connected_cmsis_nn_params;

/* As tp_fully_connected_s8; bias holds input_offset * sum filter. No shift is negative: nothing is rounded twice. */
void tp_fully_connected_cmsis_nn_s8(const tp_fully_connected_cmsis_nn_params *params, const int8_t *input,
                                    const int8_t *filter, const int32_t *bias, int8_t *output);
void tp_fully_connected_per_channel_cmsis_nn_s8(const tp_fully_connected_cmsis_nn_params *params, const int8_t *input,
                                                const int8_t *filter, const int32_t *bias, const int32_t *multiplier,
                                                const int32_t *shift, int8_t *output);

/* As tp_add_s8 and tp_mul_s8, of operands of one shape. In place allowed. */
void tp_add_cmsis_nn_s8(const tp_add_params *params, const int8_t *input1, const int8_t *input2, int8_t *output);
void tp_mul_cmsis_nn_s8(const tp_mul_params *params, const int8_t *input1, const int8_t *input2, int8_t *output);

/* As the pools; every window has taps inside the image. */
void tp_average_pool_cmsis_nn_s8(const tp_pool_params *params, const int8_t *input, int8_t *output, void *scratch);
tp_status tp_average_pool_cmsis_nn_check(const tp_pool_params *params, int32_t scratch_bytes);
void tp_max_pool_cmsis_nn_s8(const tp_pool_params *params, const int8_t *input, int8_t *output);

/* As tp_softmax_s8 without an input_shift; input_left_shift is at most 30. In place allowed. */
void tp_softmax_cmsis_nn_s8(const tp_softmax_params *params, const int8_t *input, int8_t *output);

/* Whether the library rounds twice when it requantises. */
tp_status tp_rounding_cmsis_nn_check(void);

#endif
