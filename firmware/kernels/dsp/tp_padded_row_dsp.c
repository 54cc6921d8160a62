#include <string.h>

#include "tinypeft/tp_arithmetic.h"
#include "tinypeft/tp_kernels_dsp_backward.h"

void tp_padded_row_dsp(const tp_window *w, const int8_t *input, int32_t y, int32_t padding, int32_t pitch,
                       int8_t *row) {
  const int32_t before = w->pad_left * w->input_c, size = w->input_w * w->input_c;
  memset(row, padding, (size_t)pitch);
  if (y >= 0 && y < w->input_h) {
    const int32_t left_out = tp_max_s32(-before, 0), at = tp_max_s32(before, 0);
    const int32_t count = tp_min_s32(size - left_out, pitch - at);
    memcpy(row + at, input + y * size + left_out, (size_t)tp_max_s32(count, 0));
  }
}
