/* Initialisation, and updates by gradients. */
#ifndef TP_KERNELS_TRAIN_H
#define TP_KERNELS_TRAIN_H

#include "tp_optimizer.h"
#include "tp_types.h"

/* What happened to a row of masters since it was quantised: nothing, an update, or it was written from outside. */
enum { TP_ROW_CLEAN = 0, TP_ROW_CHANGED = 1, TP_ROW_WRITTEN = 2 };

/* A part of a parameter's gradient, the sums over positions, rounded to `shift` bits fewer: of rows from `row` on,
 * elements from `column` on, into gradient (block,width). block and width are tp_update_params'; of the last rows and
 * elements there are fewer. Parts are asked for in order, rows last, and nothing else writes behind `gradient`.
 * Returns 0 where it found all of it to be 0. */
typedef int (*tp_gradient_function)(const void *params, const tp_bfp *d_output, const void *source, int32_t row,
                                    int32_t column, int32_t shift, int32_t *gradient);

typedef struct {
  int32_t rows, row_size;
  int32_t is_vector; /* one row; row_changed has its elements */
  tp_optimizer_function update;
  const void *update_params;
  /* of tp_update_rows alone: */
  int64_t reach;      /* largest |sum| over the largest mantissa of d_output */
  int32_t skips_zero; /* leave out rows of zeros, which change nothing */
  int32_t block, width; /* rows that `gradient` gives at a time, at most 32, and elements of each */
  tp_gradient_function gradient;
  const void *gradient_params;
  const float *row_scale; /* (rows), or NULL: what a sum is worth, times scale */
  float scale;
  int32_t unit_index;
} tp_update_params;

/* Update a parameter by its gradient, a part at a time: sums * 2^exponent * (row_scale[row] * scale) *
 * unit[unit_index] * channel_unit[row], of which unit and channel_unit (rows) may be NULL. row_changed (rows), unless
 * NULL, becomes at least TP_ROW_CHANGED for each row that was not left out. scratch: block*width float, and behind them what
 * `gradient` needs. */
void tp_update_rows(const tp_update_params *params, const tp_bfp *d_output, const void *source, const float *unit,
                    const float *channel_unit, float learning_rate, float *master, int8_t *row_changed,
                    void *const *states, void *scratch);

/* Update a parameter by sums / count [* factor[0]], 0 where count is 0, and clear the sums. scratch: row_size float. */
void tp_update_from_sums(const tp_update_params *params, int32_t count, const float *factor, float learning_rate,
                         float *sums, float *master, int8_t *row_changed, void *const *states, void *scratch);

/* The same for a parameter that is a vector: one row, of which scale and channel_unit have an element each. row_changed
 * (row_size) becomes at least TP_ROW_CHANGED where the sum is not 0, or everywhere where zeros are not left out. */
void tp_update_vector(const tp_update_params *params, const tp_bfp *d_output, const void *source, const float *unit,
                      const float *channel_unit, float learning_rate, float *master, int8_t *row_changed,
                      void *const *states, void *scratch);

typedef struct {
  int32_t size;
  int32_t stream; /* number of the parameter: each draws from a stream of its own */
  float bound;
} tp_initialize_uniform_params;

/* size values in [-bound, bound), determined by seed and stream. */
void tp_initialize_uniform_f32(const tp_initialize_uniform_params *params, int32_t seed, float *master);

typedef struct {
  int32_t size;
  int32_t stream;
  float deviation;
} tp_initialize_normal_params;

/* size values around 0, nearly normal: each the sum of 12 uniforms, whose variance is 1, times deviation. */
void tp_initialize_normal_f32(const tp_initialize_normal_params *params, int32_t seed, float *master);

typedef struct {
  int32_t size;
} tp_initialize_from_table_params;

/* master (size) = table. */
void tp_initialize_from_table_f32(const tp_initialize_from_table_params *params, const float *table, float *master);

typedef struct {
  int32_t size;
  float value;
} tp_initialize_constant_f32_params;

void tp_initialize_constant_f32(const tp_initialize_constant_f32_params *params, float *state);

typedef struct {
  int32_t size;
  int32_t value;
} tp_initialize_constant_s32_params;

void tp_initialize_constant_s32(const tp_initialize_constant_s32_params *params, int32_t *state);

typedef struct {
  int32_t size;
} tp_initialize_zero_params;

/* size bytes of 0. */
void tp_initialize_zero(const tp_initialize_zero_params *params, void *state);

typedef struct {
  int32_t channels, per_channel;
  const float *unit; /* (channels): real value of one integer step */
} tp_initialize_from_base_params;

/* row_changed[i] = value, one of TP_ROW_. */
void tp_mark_rows_s8(int32_t rows, int32_t value, int8_t *row_changed);

/* master[c,i] = weights[c,i] * unit[c]. */
void tp_initialize_from_base_s8(const tp_initialize_from_base_params *params, const int8_t *weights, float *master);
void tp_initialize_from_base_s32(const tp_initialize_from_base_params *params, const int32_t *weights, float *master);

#endif
