#include "tinypeft/tp_arithmetic.h"
#include "tinypeft/tp_kernels_binary.h"
#include "tinypeft/tp_narrowing.h"

/* The mantissa of the factor at one position. */
typedef int32_t (*factor_function)(const void *params, int32_t self, int32_t other);

typedef struct {
  const tp_broadcast *broadcast;
  const void *params;
  factor_function factor;
  const tp_mantissa *gradient; /* of the output, dense */
  const int8_t *self, *other;
} product;

static int32_t value_at(const int8_t *values, int32_t index) { return values == NULL ? 0 : values[index]; }

/* How often the operand is repeated along a loop, and how many elements it has there itself. */
static int32_t repeats(const tp_loop *loop) { return loop->stride1 == 0 ? loop->extent : 1; }
static int32_t elements(const tp_loop *loop) { return loop->stride1 == 0 ? 1 : loop->extent; }

/* Positions in the output, and in `self` and `other`. */
typedef struct {
  int32_t output, self, other;
} position;

static position step(position at, const tp_loop *loop, int32_t output_stride, int32_t index) {
  const position moved = {at.output + index * output_stride, at.self + index * loop->stride1,
                          at.other + index * loop->stride2};
  return moved;
}

/* The sum of gradient * factor over the loops along which the operand is repeated, from `start`. */
static int64_t sum_from(const product *p, position start) {
  const tp_broadcast *b = p->broadcast;
  const int32_t inner_stride = b->row.extent, middle_stride = b->inner.extent * inner_stride;
  const int32_t outer_stride = b->middle.extent * middle_stride;
  const int32_t self = value_at(p->self, start.self);
  int64_t sum = 0;
  for (int32_t i = 0; i < repeats(&b->outer); i++) {
    const position at_i = step(start, &b->outer, outer_stride, i);
    for (int32_t j = 0; j < repeats(&b->middle); j++) {
      const position at_j = step(at_i, &b->middle, middle_stride, j);
      for (int32_t k = 0; k < repeats(&b->inner); k++) {
        position at = step(at_j, &b->inner, inner_stride, k);
        for (int32_t l = 0; l < repeats(&b->row); l++) {
          const int32_t factor = p->factor(p->params, self, value_at(p->other, at.other));
          sum += p->gradient[at.output] * factor;
          at = step(at, &b->row, 1, 1);
        }
      }
    }
  }
  return sum;
}

/* Every sum in the order of `self`, shifted right and stored in `target` unless that is NULL; the largest |value|. */
static int64_t store_sums(const product *p, int32_t shift, tp_mantissa *target) {
  const tp_broadcast *b = p->broadcast;
  const int32_t inner_stride = b->row.extent, middle_stride = b->inner.extent * inner_stride;
  const int32_t outer_stride = b->middle.extent * middle_stride;
  const position start = {0, 0, 0};
  int64_t largest = 0;
  for (int32_t i = 0; i < elements(&b->outer); i++) {
    const position at_i = step(start, &b->outer, outer_stride, i);
    for (int32_t j = 0; j < elements(&b->middle); j++) {
      const position at_j = step(at_i, &b->middle, middle_stride, j);
      for (int32_t k = 0; k < elements(&b->inner); k++) {
        position at = step(at_j, &b->inner, inner_stride, k);
        for (int32_t l = 0; l < elements(&b->row); l++) {
          const int64_t sum = tp_round_shift_s64(sum_from(p, at), shift);
          const int64_t magnitude = sum < 0 ? -sum : sum;
          largest = magnitude > largest ? magnitude : largest;
          if (target != NULL) {
            *target++ = (tp_mantissa)sum;
          }
          at = step(at, &b->row, 1, 1);
        }
      }
    }
  }
  return largest;
}

/* Every product where nothing is repeated. */
static void put_products(const product *p, tp_narrowing *to, tp_mantissa *target) {
  const tp_broadcast *b = p->broadcast;
  const tp_mantissa *gradient = p->gradient;
  int32_t self = 0;
  for (int32_t i = 0; i < b->outer.extent; i++) {
    for (int32_t j = 0; j < b->middle.extent; j++) {
      for (int32_t k = 0; k < b->inner.extent; k++) {
        int32_t other = i * b->outer.stride2 + j * b->middle.stride2 + k * b->inner.stride2;
        for (int32_t l = 0; l < b->row.extent; l++) {
          const int32_t factor = p->factor(p->params, value_at(p->self, self), value_at(p->other, other));
          tp_put_mantissa(to, *gradient++ * factor, &target[self++]);
          other += b->row.stride2;
        }
      }
    }
  }
}

static int32_t is_summed(const tp_broadcast *b) {
  return repeats(&b->outer) * repeats(&b->middle) * repeats(&b->inner) * repeats(&b->row) > 1;
}

static void backward(const product *p, int32_t largest, int32_t exponent, const tp_bfp *d_output, tp_bfp *d_self) {
  if (is_summed(p->broadcast)) {
    /* a bound of the sums would waste the bits by which their terms cancel */
    const int32_t shift = tp_narrow_shift(store_sums(p, 0, NULL), TP_BFP_MAX);
    d_self->peak = (int32_t)store_sums(p, shift, d_self->mantissa);
    d_self->exponent = d_output->exponent + exponent + shift;
    return;
  }
  tp_narrowing to = tp_narrow_within((int64_t)d_output->peak * largest);
  do {
    put_products(p, &to, d_self->mantissa);
  } while (tp_next_pass(&to));
  tp_finish(&to, d_output->exponent + exponent, d_self);
}

static int32_t scaled_factor(const void *context, int32_t self, int32_t other) {
  const tp_scaled_backward_params *params = context;
  const int32_t total = params->self_coefficient * self + params->other_coefficient * other + params->constant;
  return tp_round_shift_s32(total, params->factor_shift);
}

void tp_scaled_backward_s16(const tp_scaled_backward_params *params, const tp_bfp *d_output, const int8_t *self,
                            const int8_t *other, tp_bfp *d_self) {
  const product p = {&params->broadcast, params, scaled_factor, d_output->mantissa, self, other};
  backward(&p, params->largest, params->exponent, d_output, d_self);
}

static int32_t selected_factor(const void *context, int32_t self, int32_t other) {
  const tp_selected_backward_params *params = context;
  return params->sign * (self - other) >= params->margin ? 1 : 0;
}

void tp_selected_backward_s16(const tp_selected_backward_params *params, const tp_bfp *d_output, const int8_t *self,
                              const int8_t *other, tp_bfp *d_self) {
  const product p = {&params->broadcast, params, selected_factor, d_output->mantissa, self, other};
  backward(&p, params->largest, params->exponent, d_output, d_self);
}

static int32_t prelu_factor(const void *context, int32_t self, int32_t other) {
  const tp_prelu_backward_params *params = context;
  if (self > params->zero_point) {
    return params->one;
  }
  return tp_round_shift_s32((other + params->slope_offset) * params->slope_multiplier, params->slope_shift);
}

void tp_prelu_backward_s16(const tp_prelu_backward_params *params, const tp_bfp *d_output, const int8_t *self,
                           const int8_t *other, tp_bfp *d_self) {
  const product p = {&params->broadcast, params, prelu_factor, d_output->mantissa, self, other};
  backward(&p, params->largest, params->exponent, d_output, d_self);
}
