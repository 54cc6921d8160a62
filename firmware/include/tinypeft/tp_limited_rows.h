/* Rows of two operands, compiled once for activations that have limits of their own and once for others. */
#ifndef TP_LIMITED_ROWS_H
#define TP_LIMITED_ROWS_H

#include "tp_broadcast.h"

/* Whether int8 results are to be clamped at all. */
static inline int32_t tp_is_limited(int32_t activation_min, int32_t activation_max) {
  return activation_min > INT8_MIN || activation_max < INT8_MAX;
}

/* The row functions free_row and limited_row, of elements(params, count, input1, input2, output, limited), which is
 * inlined into both. */
#define TP_LIMITED_ROWS(elements)                                                                   \
  static TP_NOINLINE void free_row(const void *params, const tp_loop *row, const int8_t *input1,    \
                                   const int8_t *input2, int8_t *output) {                          \
    elements(params, row->extent, input1, input2, output, 0);                                       \
  }                                                                                                 \
  static TP_NOINLINE void limited_row(const void *params, const tp_loop *row, const int8_t *input1, \
                                      const int8_t *input2, int8_t *output) {                       \
    elements(params, row->extent, input1, input2, output, 1);                                       \
  }

#endif
