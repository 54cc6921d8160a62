#include "tinypeft/tp_arithmetic.h"
#include "tinypeft/tp_kernels.h"

/* Of a change this many bits are kept, so that what is restored from it gives the same integer. */
#define BITS 22

void tp_bitfit_quantize_f32(const tp_bitfit_params *params, const float *master, int32_t *bias) {
  for (int32_t c = 0; c < params->channels; c++) {
    const float steps = tp_limit_f32(tp_limit_f32(master[c], TP_MASTER_LIMIT) / params->unit[c], (float)params->room);
    const int32_t shift = tp_max_s32(tp_float_exponent(steps < 0.0f ? -steps : steps) - (BITS - 1), 0);
    bias[c] = params->base[c] + tp_round_to_s32(steps * tp_exp2i(-shift)) * ((int32_t)1 << shift);
  }
}

void tp_bitfit_restore_f32(const tp_bitfit_params *params, const int32_t *bias, float *master) {
  for (int32_t c = 0; c < params->channels; c++) {
    const int64_t difference = (int64_t)bias[c] - params->base[c];
    const int32_t room = params->room;
    const int32_t change = difference > room ? room : difference < -room ? -room : (int32_t)difference;
    master[c] = (float)change * params->unit[c];
  }
}
