/* How int32 results become mantissas. With 16 bits the shift follows from a bound and one pass stores them. With 8 the
 * bits that a bound wastes would be missed: everything is computed twice, first to find the largest.
 *
 *   tp_narrowing to = tp_narrow_within(bound);
 *   do {
 *     ... tp_put_mantissa(&to, value, &result->mantissa[i]); ...
 *   } while (tp_next_pass(&to));
 *   tp_finish(&to, exponent, result); */
#ifndef TP_NARROWING_H
#define TP_NARROWING_H

#include "tp_arithmetic.h"

typedef struct {
  int32_t stores; /* 0 in the pass that only finds the peak */
  int32_t shift, peak;
} tp_narrowing;

/* Of values that need no shift. */
static inline tp_narrowing tp_as_they_are(void) {
  const tp_narrowing to = {1, 0, 0};
  return to;
}

/* Of values up to `bound`, which int32 holds, and the half of what they are shifted by beside it. */
static inline tp_narrowing tp_narrow_within(int64_t bound) {
  tp_narrowing to = {0, 0, 0};
  if (TP_GRADIENT_BITS == 16) {
    to.stores = 1;
    to.shift = tp_narrow_shift(bound, TP_BFP_MAX);
  }
  return to;
}

/* Shift `value` right, half up, and store it where this is the pass for that. */
static inline void tp_put_mantissa(tp_narrowing *to, int32_t value, tp_mantissa *target) {
  const int32_t shifted = tp_round_shift_s32(value, to->shift);
  to->peak = tp_max_s32(to->peak, tp_abs_s32(shifted));
  if (TP_GRADIENT_BITS == 16 || to->stores != 0) {
    *target = (tp_mantissa)shifted;
  }
}

/* Whether the values are to be put once more. */
static inline int tp_next_pass(tp_narrowing *to) {
  if (TP_GRADIENT_BITS == 16 || to->stores != 0) {
    return 0;
  }
  to->stores = 1;
  to->shift = tp_narrow_shift(to->peak, TP_BFP_MAX);
  to->peak = 0;
  return 1;
}

/* Exponent and peak of the result; values were put in units of 2^exponent. */
static inline void tp_finish(const tp_narrowing *to, int32_t exponent, tp_bfp *result) {
  result->exponent = exponent + to->shift;
  result->peak = to->peak;
}

/* The largest sum of two gradients in front of `tp_put_mantissa`: with 16 bits it fits as it is. */
#define TP_SUM_MAX (TP_GRADIENT_BITS == 16 ? TP_BFP_MAX : TP_ACCUMULATOR_MAX)

#endif
