/* What is trained of a layer's output channels, one number each: biases (BitFit) and factors (IA3). */
#ifndef TP_KERNELS_CHANNEL_H
#define TP_KERNELS_CHANNEL_H

#include "tp_types.h"

typedef struct {
  int32_t channels;
  int32_t room;        /* largest change of a bias, a power of two up to 2^30 */
  const int32_t *base; /* (channels): what the frozen layer adds */
  const float *unit;   /* (channels): real value of a step of the accumulator */
} tp_bitfit_params;

/* bias[c] = base[c] + master[c] / unit[c], the change rounded to 22 bits and limited to +-room; not a number counts as
 * 0. */
void tp_bitfit_quantize_f32(const tp_bitfit_params *params, const float *master, int32_t *bias);

/* The changes that trained biases stand for. */
void tp_bitfit_restore_f32(const tp_bitfit_params *params, const int32_t *bias, float *master);

typedef struct {
  int32_t channels;
  const int32_t *base_multiplier; /* (channels): 2^30 to 2^31 - 1; 0 for a channel that gives the zero point alone */
  const int8_t *base_shift;       /* (channels): -31 to 30 */
  const float *filter_scale;      /* (channels) */
} tp_ia3_params;

/* Multipliers and shifts of a layer whose output channels are multiplied by master (channels), limited to [2^-6, 2^6]
 * and to what keeps shifts within [-31, 30]; a factor of 1 gives the base's. For the backward pass factor and inverse
 * (channels), the factors and one over them; fold_multiplier (channels), fold_exponent (1): filter scales times
 * factors. */
void tp_ia3_quantize_f32(const tp_ia3_params *params, const float *master, int32_t *multiplier, int8_t *shift,
                         float *factor, float *inverse, int16_t *fold_multiplier, int32_t *fold_exponent);

/* The factors that multipliers stand for, and what the backward pass derives from them. multiplier >= 0. */
void tp_ia3_restore_f32(const tp_ia3_params *params, const int32_t *multiplier, const int8_t *shift, float *master,
                        float *factor, float *inverse, int16_t *fold_multiplier, int32_t *fold_exponent);

typedef struct {
  int32_t positions, channels;
  int32_t source_offset; /* -zero_point of the layer's output */
} tp_ia3_gradient_params;

/* tp_gradient_function of a vector: d_factor[c] = sum over positions of d_output[p,c] * (source[p,c] + source_offset),
 * still to be divided by the factor; source is the layer's output, int8 (positions,channels). */
int tp_ia3_gradient_s32(const void *params, const tp_bfp *d_output, const void *source, int32_t row, int32_t column,
                        int32_t shift, int32_t *gradient);

#endif
