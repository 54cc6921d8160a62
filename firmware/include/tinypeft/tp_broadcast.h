/* Two operands broadcast to one output: four nested loops, of which the innermost is left to a function a row. */
#ifndef TP_BROADCAST_H
#define TP_BROADCAST_H

#include "tp_types.h"

typedef struct {
  int32_t extent;
  int32_t stride1, stride2; /* elements from one index to the next; 0 repeats the operand */
} tp_loop;

/* Adjoining dimensions that broadcast alike are one loop; loops that are not needed have an extent of 1. */
typedef struct {
  tp_loop outer, middle, inner, row;
} tp_broadcast;

/* output[i] from input1[i * row->stride1] and input2[i * row->stride2], for i < row->extent. */
typedef void (*tp_row_function)(const void *params, const tp_loop *row, const int8_t *input1, const int8_t *input2,
                                int8_t *output);

/* Calls `function` for every row of the output, in order. */
static inline void tp_for_each_row(const tp_broadcast *broadcast, tp_row_function function, const void *params,
                                   const int8_t *input1, const int8_t *input2, int8_t *output) {
  const tp_loop *outer = &broadcast->outer, *middle = &broadcast->middle, *inner = &broadcast->inner;
  for (int32_t i = 0; i < outer->extent; i++) {
    for (int32_t j = 0; j < middle->extent; j++) {
      for (int32_t k = 0; k < inner->extent; k++) {
        function(params, &broadcast->row, input1 + i * outer->stride1 + j * middle->stride1 + k * inner->stride1,
                 input2 + i * outer->stride2 + j * middle->stride2 + k * inner->stride2, output);
        output += broadcast->row.extent;
      }
    }
  }
}

#endif
