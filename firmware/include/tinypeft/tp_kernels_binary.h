/* Elementwise operators of two int8 tensors, broadcast to each other, and the gradient of an operand. The operands are
 * dense; the output may be in place of one that has its size. Offsets, multipliers and shifts as in tp_requantize. */
#ifndef TP_KERNELS_BINARY_H
#define TP_KERNELS_BINARY_H

#include "tp_broadcast.h"

typedef struct {
  tp_broadcast broadcast;
  int32_t input1_offset, input1_multiplier, input1_shift;
  int32_t input2_offset, input2_multiplier, input2_shift;
  int32_t left_shift; /* of both inputs, before they are scaled */
  int32_t output_offset, output_multiplier, output_shift;
  int32_t activation_min, activation_max;
} tp_add_params;

/* output = clamp(requantize(requantize(input1) +- requantize(input2))). */
void tp_add_s8(const tp_add_params *params, const int8_t *input1, const int8_t *input2, int8_t *output);
void tp_sub_s8(const tp_add_params *params, const int8_t *input1, const int8_t *input2, int8_t *output);

typedef struct {
  tp_broadcast broadcast;
  int32_t input1_offset, input2_offset;
  int32_t output_offset, output_multiplier, output_shift;
  int32_t activation_min, activation_max;
} tp_mul_params;

/* output = clamp(requantize(input1 * input2)). */
void tp_mul_s8(const tp_mul_params *params, const int8_t *input1, const int8_t *input2, int8_t *output);

typedef struct {
  tp_broadcast broadcast;
  int32_t input1_offset, input1_multiplier, input1_shift;
  int32_t input2_offset, input2_multiplier, input2_shift;
  int32_t left_shift; /* of both inputs, before they are scaled; at most 7 */
  int32_t output_offset, output_multiplier, output_shift;
} tp_squared_difference_params;

/* output = requantize((requantize(input1) - requantize(input2))^2), saturated. */
void tp_squared_difference_s8(const tp_squared_difference_params *params, const int8_t *input1, const int8_t *input2,
                              int8_t *output);

typedef struct {
  tp_broadcast broadcast;
} tp_extremum_params;

/* The larger or the smaller one. */
void tp_maximum_s8(const tp_extremum_params *params, const int8_t *input1, const int8_t *input2, int8_t *output);
void tp_minimum_s8(const tp_extremum_params *params, const int8_t *input1, const int8_t *input2, int8_t *output);

typedef struct {
  tp_broadcast broadcast;
  int32_t input1_offset, input2_offset, output_offset;
  int32_t positive_multiplier, positive_shift; /* input scale / output scale */
  int32_t negative_multiplier, negative_shift; /* times the scale of the slopes */
} tp_prelu_params;

/* output = input1 where it is positive, else input1 * input2, the slopes; saturated. */
void tp_prelu_s8(const tp_prelu_params *params, const int8_t *input1, const int8_t *input2, int8_t *output);

/* Gradients: d_self = d_output * factor, where factor = mantissa * 2^exponent depends on both operands. `broadcast` has
 * `self` first; where that was broadcast, d_self is summed. `self` and `other` may be NULL where they don't matter.
 * In place on d_output allowed where nothing is summed. `largest` bounds the mantissas of the factors. */

typedef struct {
  tp_broadcast broadcast;
  int32_t self_coefficient, other_coefficient, constant;
  int32_t factor_shift; /* of the sum of these, rounded half up */
  int32_t largest, exponent;
} tp_scaled_backward_params;

/* mantissa = (self_coefficient * self + other_coefficient * other + constant) >> factor_shift. */
void tp_scaled_backward_s16(const tp_scaled_backward_params *params, const tp_bfp *d_output, const int8_t *self,
                            const int8_t *other, tp_bfp *d_self);

typedef struct {
  tp_broadcast broadcast;
  int32_t sign, margin;
  int32_t largest, exponent;
} tp_selected_backward_params;

/* mantissa = 1 where sign * (self - other) >= margin, else 0. */
void tp_selected_backward_s16(const tp_selected_backward_params *params, const tp_bfp *d_output, const int8_t *self,
                              const int8_t *other, tp_bfp *d_self);

typedef struct {
  tp_broadcast broadcast;
  int32_t zero_point;                                  /* of self */
  int32_t one;                                         /* the mantissa of 1 */
  int32_t slope_offset, slope_multiplier, slope_shift; /* slope = (other + offset) * multiplier >> shift */
  int32_t largest, exponent;
} tp_prelu_backward_params;

/* mantissa = one where self > zero_point, else the slope. */
void tp_prelu_backward_s16(const tp_prelu_backward_params *params, const tp_bfp *d_output, const int8_t *self,
                           const int8_t *other, tp_bfp *d_self);

#endif
