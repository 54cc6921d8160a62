/* Models that are trained one after the other, and what their state is after each step. */
#ifndef MATRIX_H
#define MATRIX_H

#include "tinypeft/tp_model.h"

typedef struct {
  const char *name;
  const tp_model *model;
  tp_status (*init)(void);
  const uint16_t *adapter_sizes; /* bytes of each tensor of the adapter, in order; 0 ends them */
  const uint16_t *training_sizes;
} matrix_entry;

typedef void (*matrix_write)(const uint8_t *data, uint32_t length);

/* Generated: the models, NULL as the last one's name, and the samples that all of them see in turn. */
extern const matrix_entry matrix_entries[];
extern const uint32_t matrix_steps;
extern const uint32_t matrix_samples;
extern const float matrix_rate;
extern const int8_t matrix_inputs[];
extern const int32_t matrix_targets[];
extern const int32_t matrix_labels[];

/* Train all of them from seed 1, a line a step: the model's name, the step, the bits of the loss, and the CRC-32 of each
 * tensor of adapter and training state. Step 0 is the fresh adapter; a last line `name output` has the CRC of an
 * inference. An error is a line `name failed` and the status. "done" ends the lines. */
void matrix_run(matrix_write write);

#endif
