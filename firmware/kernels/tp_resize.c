#include "tinypeft/tp_kernels_resize.h"

#include "tinypeft/tp_arithmetic.h"
#include "tinypeft/tp_narrowing.h"

#define ONE 1024
/* Channels whose sums are held at once. */
#define BLOCK 8

/* An output between two inputs: `upper` weighs fraction/1024, `lower` the rest. */
typedef struct {
  int32_t lower, upper, fraction;
} between;

static between place_of(const tp_resize_axis *axis, int32_t output) {
  between place = {0, 0, 0};
  const int32_t position = output * axis->step + axis->start;
  if (position > 0) {
    place.lower = position / ONE;
    place.fraction = position % ONE;
    place.upper = tp_min_s32(place.lower + (place.fraction > 0 ? 1 : 0), axis->input - 1);
    if (place.upper == place.lower) {
      place.fraction = 0;
    }
  }
  return place;
}

void tp_resize_bilinear_s8(const tp_resize_bilinear_params *params, const int8_t *input, int8_t *output) {
  const int32_t channels = params->channels;
  const int32_t row = params->columns.input * channels;
  for (int32_t n = 0; n < params->batch; n++) {
    for (int32_t y = 0; y < params->rows.output; y++) {
      const between at_y = place_of(&params->rows, y);
      const int8_t *top = input + at_y.lower * row;
      const int8_t *bottom = input + at_y.upper * row;
      for (int32_t x = 0; x < params->columns.output; x++) {
        const between at_x = place_of(&params->columns, x);
        const int32_t left = at_x.lower * channels;
        const int32_t right = at_x.upper * channels;
        const int32_t bottom_right = at_y.fraction * at_x.fraction;
        const int32_t bottom_left = at_y.fraction * ONE - bottom_right;
        const int32_t top_right = at_x.fraction * ONE - bottom_right;
        const int32_t top_left = (ONE - at_y.fraction) * ONE - top_right;
        for (int32_t c = 0; c < channels; c++) {
          const int32_t sum = top[left + c] * top_left + top[right + c] * top_right + bottom[left + c] * bottom_left +
                              bottom[right + c] * bottom_right;
          *output++ = (int8_t)((sum + (sum > 0 ? ONE * ONE / 2 : -(ONE * ONE / 2))) / (ONE * ONE));
        }
      }
    }
    input += params->rows.input * row;
  }
}

/* The weight of `input` in what lies at `place`, in 1/1024. */
static int32_t weight_of(between place, int32_t input) {
  if (place.lower == input) {
    return ONE - place.fraction;
  }
  return place.upper == input ? place.fraction : 0;
}

/* The first output at or behind `from` that `input` may have weight in; inputs are asked for in rising order. */
static int32_t first_output(const tp_resize_axis *axis, int32_t input, int32_t from) {
  while (from < axis->output && place_of(axis, from).upper < input) {
    from++;
  }
  return from;
}

/* What is fixed for a whole gradient. */
typedef struct {
  int32_t narrow; /* of a mantissa, before a row is summed */
  int32_t middle; /* of a row's sum, before rows are */
  int64_t bound;  /* of the result */
} shifts;

static shifts find_shifts(const tp_resize_bilinear_backward_params *params, int32_t peak) {
  shifts found;
  found.narrow = tp_accumulator_shift(peak, params->columns_l1);
  const int32_t bound = (int32_t)tp_round_shift_s64(peak, found.narrow) * params->columns_l1;
  found.middle = tp_accumulator_shift(bound, params->rows_l1);
  found.bound = tp_round_shift_s64(bound, found.middle) * params->rows_l1;
  return found;
}

/* acc[0..count) = the weighted sums over d_output (OH,OW,C) for input (y, x), channels c onwards; no output in front of
 * (begin_y, begin_x) has weight. */
static void sum_weighted(const tp_resize_bilinear_backward_params *params, const tp_mantissa *d_output, shifts s,
                         int32_t y, int32_t x, int32_t begin_y, int32_t begin_x, int32_t c, int32_t count, int32_t *acc) {
  const tp_resize_axis *rows = &params->rows;
  const tp_resize_axis *columns = &params->columns;
  for (int32_t i = 0; i < count; i++) {
    acc[i] = 0;
  }
  for (int32_t oy = begin_y; oy < rows->output; oy++) {
    const between at_y = place_of(rows, oy);
    if (at_y.lower > y) {
      break;
    }
    int32_t sum[BLOCK] = {0};
    for (int32_t ox = begin_x; ox < columns->output; ox++) {
      const between at_x = place_of(columns, ox);
      if (at_x.lower > x) {
        break;
      }
      const int32_t weight = weight_of(at_x, x);
      const tp_mantissa *source = d_output + (oy * columns->output + ox) * params->channels + c;
      for (int32_t i = 0; i < count; i++) {
        sum[i] += tp_round_shift_s32(source[i], s.narrow) * weight;
      }
    }
    const int32_t weight = weight_of(at_y, y);
    for (int32_t i = 0; i < count; i++) {
      acc[i] += tp_round_shift_s32(sum[i], s.middle) * weight;
    }
  }
}

void tp_resize_bilinear_backward_s16(const tp_resize_bilinear_backward_params *params, const tp_bfp *d_output,
                                     tp_bfp *d_input) {
  const shifts s = find_shifts(params, d_output->peak);
  tp_narrowing to = tp_narrow_within(s.bound);
  do {
    const tp_mantissa *source = d_output->mantissa;
    tp_mantissa *target = d_input->mantissa;
    for (int32_t n = 0; n < params->batch; n++) {
      int32_t begin_y = 0;
      for (int32_t y = 0; y < params->rows.input; y++) {
        begin_y = first_output(&params->rows, y, begin_y);
        int32_t begin_x = 0;
        for (int32_t x = 0; x < params->columns.input; x++) {
          begin_x = first_output(&params->columns, x, begin_x);
          for (int32_t c = 0; c < params->channels; c += BLOCK) {
            int32_t acc[BLOCK];
            const int32_t count = tp_min_s32(BLOCK, params->channels - c);
            sum_weighted(params, source, s, y, x, begin_y, begin_x, c, count, acc);
            for (int32_t i = 0; i < count; i++) {
              tp_put_mantissa(&to, acc[i], target++);
            }
          }
        }
      }
      source += params->rows.output * params->columns.output * params->channels;
    }
  } while (tp_next_pass(&to));
  tp_finish(&to, d_output->exponent + s.narrow + s.middle - 20, d_input);
}
