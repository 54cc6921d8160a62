#include "tinypeft/tp_arithmetic.h"
#include "tinypeft/tp_kernels.h"

/* Tell the quantiser of rows that have changed. */
static void mark_rows(int8_t *row_changed, int32_t count) {
  for (int32_t i = 0; i < count; i++) {
    row_changed[i] = (int8_t)tp_max_s32(row_changed[i], TP_ROW_CHANGED);
  }
}

/* Update `count` elements from `column` on of each of `rows` rows: all of them where there is more than one. */
static void update_some(const tp_update_params *params, int32_t row, int32_t rows, int32_t column, int32_t count,
                        const float *gradient, float learning_rate, float *master, int8_t *row_changed,
                        void *const *states) {
  params->update(params->update_params, row * params->row_size + column, rows * count, gradient, learning_rate, master,
                 states);
  if (row_changed != NULL) {
    mark_rows(row_changed + row, params->is_vector != 0 ? count : rows);
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

/* Sums of rows, (rows,width) of which `count` each are used, become numbers in the same memory, times what a sum of
 * each is worth. Returns a bit for each row that is not all 0. */
static TP_NOINLINE uint32_t scale_rows(const tp_update_params *params, int32_t row, int32_t rows, int32_t count,
                                       float step, const float *unit, const float *channel_unit, float *gradient) {
  const float *row_scale = params->row_scale;
  const float scale = params->scale;
  const float shared = unit != NULL ? unit[params->unit_index] : 1.0f;
  const int32_t left = params->width - count;
  uint32_t changes = 0;
  for (int32_t i = 0; i < rows; i++, gradient += left) {
    float factor = step * (row_scale != NULL ? row_scale[row + i] * scale : scale) * shared;
    if (channel_unit != NULL) {
      factor = factor * channel_unit[row + i];
    }
    int32_t any = 0;
    for (const float *end = gradient + count; gradient < end; gradient++) {
      int32_t sum;
      memcpy(&sum, gradient, sizeof sum);
      any |= sum;
      *gradient = (float)sum * factor;
    }
    changes |= any != 0 ? 1u << i : 0;
  }
  return changes;
}

void tp_update_rows(const tp_update_params *params, const tp_bfp *d_output, const void *source, const float *unit,
                    const float *channel_unit, float learning_rate, float *master, int8_t *row_changed,
                    void *const *states, void *scratch) {
  float *const gradient = scratch;
  const int32_t size = params->row_size, width = params->width;
  const int32_t shift = sum_shift((int64_t)d_output->peak * params->reach);
  const float step = tp_exp2i(d_output->exponent + shift);
  const uint32_t always = params->skips_zero != 0 ? 0 : ~0u;
  for (int32_t row = 0; row < params->rows; row += params->block) {
    const int32_t rows = tp_min_s32(params->block, params->rows - row);
    for (int32_t column = 0; column < size; column += width) {
      const int32_t count = tp_min_s32(width, size - column);
      const int any = params->gradient(params->gradient_params, d_output, source, row, column, shift, scratch);
      if (any == 0 && always == 0) {
        continue;
      }
      const uint32_t changes = always | scale_rows(params, row, rows, count, step, unit, channel_unit, gradient);
      for (int32_t first = 0, end; first < rows; first = end) {
        end = first + 1;
        if ((changes >> first & 1) != 0) {
          while (count == size && end < rows && (changes >> end & 1) != 0) {
            end++; /* whole rows are updated together */
          }
          update_some(params, row + first, end - first, column, count, gradient + first * width, learning_rate, master,
                      row_changed, states);
        }
      }
    }
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
    update_some(params, row, 1, 0, params->row_size, gradient, learning_rate, master, row_changed, states);
  }
}

void tp_update_vector(const tp_update_params *params, const tp_bfp *d_output, const void *source, const float *unit,
                      const float *channel_unit, float learning_rate, float *master, int8_t *row_changed,
                      void *const *states, void *scratch) {
  int32_t *sums = scratch;
  float *gradient = scratch;
  const int32_t shift = sum_shift((int64_t)d_output->peak * params->reach);
  const float step = tp_exp2i(d_output->exponent + shift);
  params->gradient(params->gradient_params, d_output, source, 0, 0, shift, sums);
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
