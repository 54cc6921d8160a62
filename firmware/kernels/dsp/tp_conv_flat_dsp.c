#include "tinypeft/tp_kernels_dsp.h"

void tp_conv_flat_dsp_s8(const tp_conv_flat_dsp_params *params, const int8_t *input, int8_t *output, void *scratch) {
  const tp_window *w = &params->window;
  const int32_t *const last = params->words + params->word_count - 1;
  const int32_t row_size = w->output_w * w->output_c;
  tp_flat_rows held = {scratch, 0, 0};
  for (int32_t oy = 0; oy < w->output_h; oy += params->together) {
    int16_t *const x = tp_widen_flat_dsp(params, input, oy, &held);
    const int both = oy + params->together <= w->output_h;
    const int32_t apart = params->together == 1 ? w->output_c : both ? row_size : 0;
    params->dot(x, params->words, output, w->output_w, apart, last, NULL);
    output += params->together * row_size;
  }
}
