/* Sample `number` of the demonstration, known on both sides. */
#ifndef PATTERN_H
#define PATTERN_H

#include <stdint.h>

static inline void tp_pattern(uint8_t *sample, uint32_t bytes, uint32_t number) {
  for (uint32_t i = 0; i < bytes; i++) {
    sample[i] = (uint8_t)(i * 37u + number * 101u + 11u);
  }
}

#endif
