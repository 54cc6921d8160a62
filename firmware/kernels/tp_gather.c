#include <string.h>

#include "tinypeft/tp_arithmetic.h"
#include "tinypeft/tp_kernels_layout.h"
#include "tinypeft/tp_narrowing.h"

/* Elements whose sums are held at once. */
#define BLOCK 8

void tp_gather_s8(const tp_gather_params *params, const int8_t *input, int8_t *output) {
  const int32_t row = params->columns.input * params->inner;
  for (int32_t n = 0; n < params->outer; n++) {
    for (int32_t y = 0; y < params->rows.output; y++) {
      const int8_t *source = input + params->rows.index[y] * row;
      for (int32_t x = 0; x < params->columns.output; x++) {
        memcpy(output, source + params->columns.index[x] * params->inner, (size_t)params->inner);
        output += params->inner;
      }
    }
    input += params->rows.input * row;
  }
}

/* acc[0..count) = the sums of the narrowed d_output over the copies of input (y, x), elements i onwards. */
static void sum_copies(const tp_gather_backward_params *params, const tp_mantissa *d_output, int32_t narrow, int32_t y,
                       int32_t x, int32_t i, int32_t count, int32_t *acc) {
  const tp_gather_backward_axis *rows = &params->rows;
  const tp_gather_backward_axis *columns = &params->columns;
  for (int32_t k = 0; k < count; k++) {
    acc[k] = 0;
  }
  for (int32_t r = rows->begin[y]; r < rows->begin[y + 1]; r++) {
    for (int32_t c = columns->begin[x]; c < columns->begin[x + 1]; c++) {
      const int32_t position = rows->member[r] * columns->output + columns->member[c];
      const tp_mantissa *source = d_output + position * params->inner + i;
      for (int32_t k = 0; k < count; k++) {
        acc[k] += tp_round_shift_s32(source[k], narrow);
      }
    }
  }
}

void tp_gather_backward_s16(const tp_gather_backward_params *params, const tp_bfp *d_output, tp_bfp *d_input) {
  const int32_t narrow = tp_accumulator_shift(d_output->peak, params->overlap);
  tp_narrowing to = tp_narrow_within(tp_round_shift_s64(d_output->peak, narrow) * params->overlap);
  do {
    const tp_mantissa *source = d_output->mantissa;
    tp_mantissa *target = d_input->mantissa;
    for (int32_t n = 0; n < params->outer; n++) {
      for (int32_t y = 0; y < params->rows.input; y++) {
        for (int32_t x = 0; x < params->columns.input; x++) {
          for (int32_t i = 0; i < params->inner; i += BLOCK) {
            int32_t acc[BLOCK];
            const int32_t count = tp_min_s32(BLOCK, params->inner - i);
            sum_copies(params, source, narrow, y, x, i, count, acc);
            for (int32_t k = 0; k < count; k++) {
              tp_put_mantissa(&to, acc[k], target++);
            }
          }
        }
      }
      source += params->rows.output * params->columns.output * params->inner;
    }
  } while (tp_next_pass(&to));
  tp_finish(&to, d_output->exponent + narrow, d_input);
}
