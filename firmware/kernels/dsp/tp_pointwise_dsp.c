#include "tinypeft/tp_kernels_dsp.h"

void tp_pointwise_dsp_s8(const tp_pointwise_dsp_params *params, const int8_t *input, int8_t *output, void *scratch) {
  params->dot(input, params->words, output, params->positions, params->output_c,
              params->words + params->word_count - 1, NULL, scratch);
}
