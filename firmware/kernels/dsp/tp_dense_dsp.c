#include "tinypeft/tp_kernels_dsp.h"

void tp_dense_dsp_s8(const tp_dense_dsp_params *params, const int8_t *input, int8_t *output) {
  const int32_t *const last = params->words + params->word_count - 1;
  for (int32_t i = 0; i < params->positions; i++) {
    params->dense(input, params->words, output, last, NULL);
    input += params->input_c;
    output += params->output_c;
  }
}
