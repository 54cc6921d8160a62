#include "tinypeft/tp_kernels_dsp.h"

void tp_conv_dsp_s8(const tp_conv_dsp_params *params, const int8_t *input, int8_t *output, void *scratch) {
  const tp_window *w = &params->window;
  const int32_t *const last = params->words + params->word_count - 1;
  tp_row_ring ring;
  ring.first = (int16_t *)scratch + 2;
  ring.end = 0;
  for (int32_t oy = 0; oy < w->output_h; oy++) {
    tp_widen_ring_dsp(params, input, oy, &ring);
    params->dot(ring.rows, params->words, output, w->output_w, w->output_c, last, NULL);
    output += w->output_w * w->output_c;
  }
}
