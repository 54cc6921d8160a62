/* Inner products that several kernels share. */
#ifndef TP_ACCUMULATE_H
#define TP_ACCUMULATE_H

#include "tp_arithmetic.h"
#include "tp_kernels_conv.h"

static inline int32_t tp_dot_s8(const int8_t *filter, const int8_t *input, int32_t count, int32_t input_offset) {
  int32_t acc = 0;
  for (int32_t i = 0; i < count; i++) {
    acc += (int32_t)filter[i] * ((int32_t)input[i] + input_offset);
  }
  return acc;
}

/* One filter of shape (KH,KW,Cin) at one output position. */
static inline int32_t tp_window_dot_s8(const tp_window *window, tp_taps rows, tp_taps columns, const int8_t *input,
                                       const int8_t *filter, int32_t input_offset) {
  int32_t acc = 0;
  for (int32_t i = rows.begin; i < rows.end; i++) {
    const int32_t row = (rows.origin + i * window->dilation_h) * window->input_w;
    for (int32_t j = columns.begin; j < columns.end; j++) {
      const int32_t position = row + columns.origin + j * window->dilation_w;
      acc += tp_dot_s8(filter + (i * window->kernel_w + j) * window->input_c, input + position * window->input_c,
                       window->input_c, input_offset);
    }
  }
  return acc;
}

/* What a LoRA adds to one accumulator: (lora_B . hidden) >> shift, rounded half up; a negative shift goes left. */
static inline int32_t tp_lora_up(const int16_t *hidden, const int8_t *lora_B, int32_t rank, int32_t shift) {
  int32_t acc = 0;
  for (int32_t r = 0; r < rank; r++) {
    acc += (int32_t)lora_B[r] * hidden[r];
  }
  return (int32_t)tp_round_shift_s64(acc, shift);
}

#endif
