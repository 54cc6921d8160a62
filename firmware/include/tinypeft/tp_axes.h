/* Walking over the axes of a reduction. */
#ifndef TP_AXES_H
#define TP_AXES_H

#include "tp_kernels_reduce.h"

/* Where a walk over all elements of some axes stands; all 0 at its beginning. */
typedef struct {
  int32_t offset; /* of the element */
  int32_t i1, i2;
} tp_walk;

/* The number of elements. */
static inline int32_t tp_axes_size(const tp_axes *axes) { return axes->n0 * axes->n1 * axes->n2; }

/* On to the next element, innermost axis first. */
static inline void tp_walk_on(const tp_axes *axes, tp_walk *walk) {
  walk->offset += axes->s2;
  if (++walk->i2 < axes->n2) {
    return;
  }
  walk->i2 = 0;
  walk->offset += axes->s1 - axes->n2 * axes->s2;
  if (++walk->i1 < axes->n1) {
    return;
  }
  walk->i1 = 0;
  walk->offset += axes->s0 - axes->n1 * axes->s1;
}

#endif
