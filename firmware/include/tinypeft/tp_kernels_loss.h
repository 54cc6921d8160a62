/* Losses in integers. Logits are int32 fixed point, one step 2^exponent with -24 <= exponent <= 0; a loss is Q16.16,
 * saturated; d_logits has the exponent that its largest element needs. Of every loss, logit_range (2) is the smallest
 * and largest logit seen, updated; it may be NULL. At most 2^15 logits. */
#ifndef TP_KERNELS_LOSS_H
#define TP_KERNELS_LOSS_H

#include "tp_types.h"

typedef struct {
  int32_t size;
  int32_t input_offset;
  int32_t multiplier, shift; /* logit = (input + input_offset) * multiplier / 2^shift */
} tp_output_logits_params;

/* An int8 output as logits, rounded half up, saturated. */
void tp_output_logits_s8(const tp_output_logits_params *params, const int8_t *input, int32_t *logits);

typedef struct {
  int32_t classes;
  int32_t exponent;
  int32_t smoothing;                /* Q1.30, 0 to 2^30 */
  const int32_t *weight_multiplier; /* (classes): weight = weight_multiplier * 2^weight_exponent; NULL: all 1 */
  const int32_t *weight_exponent;
} tp_softmax_cross_entropy_params;

/* With t = onehot(label) * (1 - smoothing) + smoothing / classes and the label's weight:
 * loss = weight * -sum t * log(softmax(logits)); d_logits = weight * (softmax(logits) - t). 0 <= label < classes.
 * scratch: `classes` values. */
void tp_softmax_cross_entropy_s32(const tp_softmax_cross_entropy_params *params, const int32_t *logits, int32_t label,
                                  int32_t *loss, tp_bfp *d_logits, int32_t *logit_range, int32_t *scratch);

typedef struct {
  int32_t size;
  int32_t exponent;
  int32_t gradient_multiplier, gradient_exponent; /* d_logits = difference * multiplier * 2^exponent */
} tp_binary_cross_entropy_params;

/* loss = mean of -t * log(p) - (1 - t) * log(1 - p), p = sigmoid(logits); d_logits = (p - t) / size.
 * target (size): t in Q16.16, limited to [0, 1]. scratch: `size` values. */
void tp_binary_cross_entropy_s32(const tp_binary_cross_entropy_params *params, const int32_t *logits,
                                 const int32_t *target, int32_t *loss, tp_bfp *d_logits, int32_t *logit_range,
                                 int32_t *scratch);

typedef struct {
  int32_t size;
  int32_t exponent;
  int32_t gradient_multiplier, gradient_exponent; /* d_logits = difference * multiplier * 2^exponent */
  int32_t input_offset;
  int32_t input_multiplier, input_shift; /* target = (input + input_offset) * input_multiplier / 2^input_shift */
} tp_mean_squared_error_params;

/* loss = mean of (logits - target)^2; d_logits = 2 * (logits - target) / size. target (size) in Q16.16; where it is
 * NULL, it is `input` (size). */
void tp_mean_squared_error_s32(const tp_mean_squared_error_params *params, const int32_t *logits,
                               const int32_t *target, const int8_t *input, int32_t *loss, tp_bfp *d_logits,
                               int32_t *logit_range);

typedef struct {
  int32_t size;
} tp_count_right_params;

/* right (1): whether the first of the largest logits is the label's. */
void tp_count_right_label_s32(const tp_count_right_params *params, const int32_t *logits, int32_t label,
                              int32_t *right);

/* right (1): how many logits are above 0 where the target, Q16.16, is above a half, and not where it is not. */
void tp_count_right_vector_s32(const tp_count_right_params *params, const int32_t *logits, const int32_t *target,
                               int32_t *right);

#endif
