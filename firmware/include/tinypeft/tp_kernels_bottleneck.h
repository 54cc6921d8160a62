/* Bottleneck adapters: the non-linearity on int16 hidden values, and the up-projection onto a layer's output. */
#ifndef TP_KERNELS_BOTTLENECK_H
#define TP_KERNELS_BOTTLENECK_H

#include "tp_types.h"

typedef struct {
  int32_t size;
} tp_hidden_activation_params;

/* output = max(hidden, 0); in place allowed. */
void tp_hidden_relu_s16(const tp_hidden_activation_params *params, const int16_t *hidden, int16_t *output);

/* output = hidden * min(max(hidden + 3, 0), 6) / 6 in the unit of hidden; gate (2) as tp_hidden_gate_f32 gives it.
 * -32767 <= hidden <= 32767. In place allowed. */
void tp_hidden_hard_swish_s16(const tp_hidden_activation_params *params, const int16_t *hidden, const int16_t *gate,
                              int16_t *output);

/* d_hidden = d_output * slope at hidden; of a ReLU hidden may be its result instead. In place over d_output allowed. */
void tp_hidden_relu_backward_s16(const tp_hidden_activation_params *params, const tp_bfp *d_output,
                                 const int16_t *hidden, tp_bfp *d_hidden);
void tp_hidden_hard_swish_backward_s16(const tp_hidden_activation_params *params, const tp_bfp *d_output,
                                       const int16_t *hidden, const int16_t *gate, tp_bfp *d_hidden);

typedef struct {
  float input_scale; /* of what the down-projection reads */
} tp_hidden_gate_params;

/* gate (2): multiplier and shift with hidden * multiplier >> shift = real hidden / 6 * 2^15. a_scale (1): scale of the
 * down-projection, hidden_shift (1): bits that its sums lose. */
void tp_hidden_gate_f32(const tp_hidden_gate_params *params, const float *a_scale, const int8_t *hidden_shift,
                        int16_t *gate);

typedef struct {
  int32_t positions, channels, rank;
  int32_t activation_min, activation_max;
} tp_residual_up_params;

/* output = clamp(input + (lora_B . hidden) >> lora_shift). input, output (positions,channels), hidden
 * (positions,rank), lora_B (channels,rank), lora_shift (channels). In place allowed. */
void tp_residual_up_s8(const tp_residual_up_params *params, const int8_t *input, const int16_t *hidden,
                       const int8_t *lora_B, const int8_t *lora_shift, int8_t *output);

#endif
