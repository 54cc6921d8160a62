#include "tinypeft/tp_arithmetic.h"
#include "tinypeft/tp_kernels.h"

/* Tell the quantiser of rows that have changed. */
static void mark_rows(int8_t *row_changed, int32_t count) {
  for (int32_t i = 0; i < count; i++) {
    row_changed[i] = (int8_t)tp_max_s32(row_changed[i], TP_ROW_CHANGED);
  }
}

static void update_row(const tp_update_params *params, int32_t row, const float *gradient, float learning_rate,
                       float *master, int8_t *row_changed, void *const *states) {
  const int32_t first = row * params->row_size;
  params->update(params->update_params, first, params->row_size, gradient, learning_rate, master, states);
  if (row_changed != NULL) {
    mark_rows(row_changed + row, params->is_vector != 0 ? params->row_size : 1);
  }
}

/* The smallest shift that brings sums of at most peak * reach into int32. */
static int32_t sum_shift(int64_t bound) {
  int32_t shift = 0;
  if (bound <= INT32_MAX) {
    return 0;
  }
  while (tp_round_shift_s64(bound, shift) > INT32_MAX) {
    shift++;
  }
  return shift;
}

void tp_update_rows(const tp_update_params *params, const tp_bfp *d_output, const void *source, const float *unit,
                    const float *channel_unit, float learning_rate, float *master, int8_t *row_changed,
                    void *const *states, void *scratch) {
  int32_t *sums = scratch;
  float *gradient = scratch;
  const int32_t shift = sum_shift((int64_t)d_output->peak * params->reach);
  const float step = tp_exp2i(d_output->exponent + shift);
  for (int32_t row = 0; row < params->rows; row++) {
    const int any = params->gradient(params->gradient_params, d_output, source, row, shift, sums);
    if (any == 0 && params->skips_zero != 0) {
      continue;
    }
    float factor = step * (params->row_scale != NULL ? params->row_scale[row] * params->scale : params->scale);
    if (unit != NULL) {
      factor = factor * unit[params->unit_index];
    }
    if (channel_unit != NULL) {
      factor = factor * channel_unit[row];
    }
    for (int32_t i = 0; i < params->row_size; i++) {
      int32_t sum;
      memcpy(&sum, &gradient[i], sizeof sum); /* the same memory as a number of the other type */
      gradient[i] = (float)sum * factor;
    }
    update_row(params, row, gradient, learning_rate, master, row_changed, states);
  }
}

void tp_update_from_sums(const tp_update_params *params, int32_t count, const float *factor, float learning_rate,
                         float *sums, float *master, int8_t *row_changed, void *const *states, void *scratch) {
  float *gradient = scratch;
  for (int32_t row = 0; row < params->rows; row++) {
    for (int32_t i = 0; i < params->row_size; i++) {
      float *sum = sums + row * params->row_size + i;
      gradient[i] = count > 0 ? *sum / (float)count : 0.0f;
      if (factor != NULL) {
        gradient[i] = tp_limit_f32(gradient[i] * factor[0], TP_MASTER_LIMIT);
      }
      *sum = 0.0f;
    }
    update_row(params, row, gradient, learning_rate, master, row_changed, states);
  }
}

void tp_update_vector(const tp_update_params *params, const tp_bfp *d_output, const void *source, const float *unit,
                      const float *channel_unit, float learning_rate, float *master, int8_t *row_changed,
                      void *const *states, void *scratch) {
  int32_t *sums = scratch;
  float *gradient = scratch;
  const int32_t shift = sum_shift((int64_t)d_output->peak * params->reach);
  const float step = tp_exp2i(d_output->exponent + shift);
  params->gradient(params->gradient_params, d_output, source, 0, shift, sums);
  for (int32_t i = 0; i < params->row_size; i++) {
    int32_t sum;
    memcpy(&sum, &gradient[i], sizeof sum); /* the same memory as a number of the other type */
    float factor = step * (params->row_scale != NULL ? params->row_scale[i] * params->scale : params->scale);
    if (unit != NULL) {
      factor = factor * unit[params->unit_index];
    }
    if (channel_unit != NULL) {
      factor = factor * channel_unit[i];
    }
    gradient[i] = (float)sum * factor;
    if (row_changed != NULL && (sum != 0 || params->skips_zero == 0)) {
      mark_rows(row_changed + i, 1);
    }
  }
  params->update(params->update_params, 0, params->row_size, gradient, learning_rate, master, states);
}
