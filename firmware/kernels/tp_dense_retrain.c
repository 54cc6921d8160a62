#include "tinypeft/tp_dense_rows.h"

/* The inputs that are not 0, and which they are. */
typedef struct {
  float *x;
  uint16_t *index;
  int32_t count;
} touched;

static touched list_touched(const tp_dense_retrain_params *params, const int8_t *source, void *scratch) {
  touched t;
  t.x = scratch;
  t.index = (uint16_t *)(void *)(t.x + params->quantize.row_size);
  t.count = 0;
  for (int32_t k = 0; k < params->quantize.row_size; k++) {
    const int32_t value = source[k] + params->input_offset;
    if (value != 0) {
      t.x[t.count] = (float)value;
      t.index[t.count] = (uint16_t)k;
      t.count++;
    }
  }
  return t;
}

/* One weight: its master moves, its integer follows; returns the latter's bits (see tp_magic_outside). */
static inline uint32_t move(float *master, int8_t *filter, float x, float step, float inverse) {
  const float change = x * step;
  const float moved = *master - change;
  const uint32_t bits = tp_magic_bits(moved * inverse);
  *master = moved;
  *filter = (int8_t)(uint8_t)(bits & 0xFFu);
  return tp_magic_outside(bits);
}

/* Move what is touched of a row; returns whether something may have left int8, so that all must be looked at. */
static int move_row(const touched *t, float *row, int8_t *filter, float step, float inverse) {
  uint32_t outside = 0;
  int32_t i = 0;
  for (; i + 4 <= t->count; i += 4) {
    const int32_t a = t->index[i];
    const int32_t b = t->index[i + 1];
    const int32_t c = t->index[i + 2];
    const int32_t d = t->index[i + 3];
    outside |= move(row + a, filter + a, t->x[i], step, inverse);
    outside |= move(row + b, filter + b, t->x[i + 1], step, inverse);
    outside |= move(row + c, filter + c, t->x[i + 2], step, inverse);
    outside |= move(row + d, filter + d, t->x[i + 3], step, inverse);
  }
  for (; i < t->count; i++) {
    outside |= move(row + t->index[i], filter + t->index[i], t->x[i], step, inverse);
  }
  return outside > 255u;
}

/* Masters within the limit: those within int8 of a scale that is small enough are anyway. */
static void limit_row(const touched *t, float *row) {
  for (int32_t i = 0; i < t->count; i++) {
    row[t->index[i]] = tp_limit_f32(row[t->index[i]], TP_MASTER_LIMIT);
  }
}

void tp_dense_retrain_f32(const tp_dense_retrain_params *params, const tp_bfp *d_output, const int8_t *source,
                          float learning_rate, float *master_filter, const float *master_bias,
                          const int32_t *logit_range, int8_t *filter, int32_t *bias, int32_t *multiplier, int8_t *shift,
                          int8_t *output_shift, float *logit_scale, int16_t *fold_multiplier, int32_t *fold_exponent,
                          int8_t *row_changed, int8_t *growth, void *scratch) {
  const tp_dense_quantize_params *quantize = &params->quantize;
  const touched t = list_touched(params, source, scratch);
  const float unit = tp_exp2i(d_output->exponent) * params->scale;
  const float rate = learning_rate * unit;
  tp_dense_state state;
  tp_dense_begin_f32(quantize, logit_range, output_shift, &state);
  for (int32_t c = 0; c < quantize->output_c; c++) {
    const int32_t mantissa = d_output->mantissa[c];
    const int moves = mantissa != 0 && t.count > 0;
    const int written = row_changed[c] == TP_ROW_WRITTEN;
    int rescaled = 0;
    if (moves != 0 || row_changed[c] != TP_ROW_CLEAN) {
      float *row = master_filter + c * quantize->row_size;
      int8_t *weights = filter + c * quantize->row_size;
      float scale = tp_dense_scale_f32(quantize, c, growth[c]);
      int all = written;
      if (moves != 0) {
        const int outside = move_row(&t, row, weights, (float)mantissa * rate, 1.0f / scale);
        if (outside != 0 || scale > TP_MASTER_LIMIT / 256.0f) {
          limit_row(&t, row);
        }
        all |= outside;
      }
      if (all != 0) {
        const int what = written != 0 ? TP_ROW_WRITTEN : TP_ROW_CHANGED;
        rescaled = tp_dense_quantize_row_f32(quantize, row, c, what, weights, &growth[c]);
        scale = tp_dense_scale_f32(quantize, c, growth[c]);
      }
      bias[c] = tp_dense_bias_f32(master_bias[c], quantize->input_scale * scale);
      row_changed[c] = TP_ROW_CLEAN;
    }
    state.scales_changed |= rescaled;
    if (rescaled != 0 || state.range_changed != 0) {
      tp_dense_rescale_channel_f32(quantize, c, growth[c], multiplier, shift, logit_scale, &state);
    }
  }
  tp_dense_end_f32(quantize, growth, fold_multiplier, fold_exponent, &state);
}
