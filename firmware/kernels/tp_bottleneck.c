#include "tinypeft/tp_accumulate.h"
#include "tinypeft/tp_kernels.h"
#include "tinypeft/tp_narrowing.h"

/* 1 in the fixed point of a gate, a half, and more than the largest slope of a hard swish. */
#define ONE 32768
#define HALF 16384
#define SLOPE_MAX 49152

void tp_hidden_relu_s16(const tp_hidden_activation_params *params, const int16_t *hidden, int16_t *output) {
  for (int32_t i = 0; i < params->size; i++) {
    output[i] = (int16_t)tp_max_s32(hidden[i], 0);
  }
}

/* hidden / 6 in steps of a gate, below 2^30. */
static int32_t sixths(int32_t hidden, const int16_t *gate) {
  return tp_round_shift_s32(hidden * gate[0], tp_clamp_s32(gate[1], 0, 30));
}

void tp_hidden_hard_swish_s16(const tp_hidden_activation_params *params, const int16_t *hidden, const int16_t *gate,
                              int16_t *output) {
  for (int32_t i = 0; i < params->size; i++) {
    const int32_t factor = tp_clamp_s32(sixths(hidden[i], gate) + HALF, 0, ONE);
    output[i] = (int16_t)tp_round_shift_s32(hidden[i] * factor, 15);
  }
}

void tp_hidden_relu_backward_s16(const tp_hidden_activation_params *params, const tp_bfp *d_output,
                                 const int16_t *hidden, tp_bfp *d_hidden) {
  int32_t peak = 0;
  for (int32_t i = 0; i < params->size; i++) {
    const int32_t value = hidden[i] > 0 ? d_output->mantissa[i] : 0;
    d_hidden->mantissa[i] = (tp_mantissa)value;
    peak = tp_max_s32(peak, tp_abs_s32(value));
  }
  d_hidden->exponent = d_output->exponent;
  d_hidden->peak = peak;
}

void tp_hidden_hard_swish_backward_s16(const tp_hidden_activation_params *params, const tp_bfp *d_output,
                                       const int16_t *hidden, const int16_t *gate, tp_bfp *d_hidden) {
  tp_narrowing to = tp_narrow_within((int64_t)d_output->peak * SLOPE_MAX);
  do {
    for (int32_t i = 0; i < params->size; i++) {
      const int32_t sixth = sixths(hidden[i], gate);
      int32_t slope = sixth > 0 ? ONE : 0;
      if (sixth > -HALF && sixth < HALF) {
        slope = 2 * sixth + HALF;
      }
      tp_put_mantissa(&to, d_output->mantissa[i] * slope, &d_hidden->mantissa[i]);
    }
  } while (tp_next_pass(&to));
  tp_finish(&to, d_output->exponent - 15, d_hidden);
}

/* (lora_B . hidden) >> shift, rounded half up; a shift below 0 goes left, as far as the quantiser has bounded it. */
static int32_t up(const int16_t *hidden, const int8_t *lora_B, int32_t rank, int32_t shift) {
  int32_t acc = 0;
  for (int32_t r = 0; r < rank; r++) {
    acc += (int32_t)lora_B[r] * hidden[r];
  }
  return shift > 0 ? tp_round_shift_s32(acc, shift) : (int32_t)((uint32_t)acc << -shift);
}

void tp_residual_up_s8(const tp_residual_up_params *params, const int8_t *input, const int16_t *hidden,
                       const int8_t *lora_B, const int8_t *lora_shift, int8_t *output) {
  for (int32_t p = 0; p < params->positions; p++) {
    for (int32_t c = 0; c < params->channels; c++) {
      const int32_t value = *input++ + up(hidden, lora_B + c * params->rank, params->rank, lora_shift[c]);
      *output++ = (int8_t)tp_clamp_s32(value, params->activation_min, params->activation_max);
    }
    hidden += params->rank;
  }
}
