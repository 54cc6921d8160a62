/* How a retrained layer is quantised channel by channel: what tp_dense_quantize_f32 and tp_dense_retrain_f32 share. */
#ifndef TP_DENSE_ROWS_H
#define TP_DENSE_ROWS_H

#include "tp_arithmetic.h"
#include "tp_kernels.h"

/* 1.5 * 2^23: added to a float32 within 2^22 it leaves that, rounded half to even, in the low bits. */
#define TP_MAGIC 12582912.0f
#define TP_MAGIC_BITS 0x4B400000u

/* The bits of x rounded; those of any x beyond 2^22, or not a number, are far from those of small integers. */
static inline uint32_t tp_magic_bits(float x) {
  const float sum = x + TP_MAGIC;
  uint32_t bits;
  memcpy(&bits, &sum, sizeof bits);
  return bits;
}

/* 0 to 255 for integers of int8, more for others. */
static inline uint32_t tp_magic_outside(uint32_t bits) { return bits - (TP_MAGIC_BITS - 128u); }

/* The integer; the sign alone is right where x is beyond 2^22. */
static inline int32_t tp_magic_to_s32(uint32_t bits, float x) {
  if (x > 4194303.0f || x < -4194303.0f) {
    return x > 0.0f ? INT32_MAX : INT32_MIN;
  }
  return (int32_t)(bits & 0x7FFFFFu) - 0x400000;
}

/* What the channels of one call share: the power of two of the output's scale and whether it changed, whether a channel's
 * scale did. */
typedef struct {
  int32_t range_shift;
  float range_scale;
  int range_changed;
  int scales_changed;
} tp_dense_state;

/* A bias in steps of the accumulator, each worth `unit`. */
static inline int32_t tp_dense_bias_f32(float master, float unit) {
  return tp_round_to_s32(tp_limit_f32(master, TP_MASTER_LIMIT) / unit);
}

/* A channel's scale once it has grown. */
float tp_dense_scale_f32(const tp_dense_quantize_params *params, int32_t channel, int32_t growth);

/* What a step of its accumulator is worth. */
static inline float tp_dense_unit_f32(const tp_dense_quantize_params *params, int32_t channel, int32_t growth) {
  return params->input_scale * tp_dense_scale_f32(params, channel, growth);
}

/* Quantise all of a row; `state` is what happened to it, TP_ROW_. *growth grows where needed. Returns whether what
 * follows from the channel's scale is to be computed: by tp_dense_rescale_channel_f32, and at the end. */
int tp_dense_quantize_row_f32(const tp_dense_quantize_params *params, const float *row, int32_t channel, int state,
                              int8_t *filter, int8_t *growth);

/* Before the first channel; for each whose scale changed, and for all where the output's did; behind the last. */
void tp_dense_begin_f32(const tp_dense_quantize_params *params, const int32_t *logit_range, int8_t *output_shift,
                        tp_dense_state *state);
void tp_dense_rescale_channel_f32(const tp_dense_quantize_params *params, int32_t channel, int32_t growth,
                                  int32_t *multiplier, int8_t *shift, float *logit_scale, const tp_dense_state *state);
void tp_dense_end_f32(const tp_dense_quantize_params *params, const int8_t *growth, int16_t *fold_multiplier,
                      int32_t *fold_exponent, const tp_dense_state *state);

#endif
