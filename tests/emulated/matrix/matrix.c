#include "matrix.h"

#include <string.h>

#include "tinypeft/tp_crc.h"
#include "tinypeft/tp_device.h"

static void text(matrix_write write, const char *string) { write((const uint8_t *)string, (uint32_t)strlen(string)); }

static void number(matrix_write write, uint32_t value) {
  uint8_t digits[9];
  digits[0] = ' ';
  for (uint32_t i = 0; i < 8; i++) {
    digits[8 - i] = (uint8_t) "0123456789abcdef"[(value >> (4 * i)) & 15u];
  }
  write(digits, sizeof digits);
}

static void checksums(matrix_write write, const void *state, const uint16_t *sizes) {
  const uint8_t *at = state;
  for (; *sizes != 0; at += *sizes++) {
    number(write, tp_crc32(0, at, *sizes));
  }
}

static void report(matrix_write write, const matrix_entry *entry, uint32_t step, float loss) {
  const tp_model *m = entry->model;
  uint32_t bits;
  memcpy(&bits, &loss, sizeof bits);
  text(write, entry->name);
  number(write, step);
  number(write, bits);
  checksums(write, m->adapter(m->self), entry->adapter_sizes);
  checksums(write, m->training(m->self), entry->training_sizes);
  text(write, "\n");
}

static tp_status train(matrix_write write, const matrix_entry *entry) {
  const tp_model *m = entry->model;
  const uint32_t targets = m->target_bytes / 4u;
  tp_status status = entry->init();
  if (status == TP_OK) {
    status = m->reset_adapter(m->self, 1);
  }
  report(write, entry, 0, 0.0f);
  for (uint32_t step = 0; step < matrix_steps && status == TP_OK; step++) {
    const uint32_t sample = step % matrix_samples;
    float loss = 0.0f;
    memcpy(m->input(m->self), matrix_inputs + sample * m->input_bytes, m->input_bytes);
    if (targets > 0) {
      memcpy(m->target(m->self), matrix_targets + sample * targets, m->target_bytes);
    }
    status = m->train_step(m->self, matrix_labels[sample], matrix_rate, &loss);
    report(write, entry, step + 1, loss);
  }
  if (status == TP_OK) {
    memcpy(m->input(m->self), matrix_inputs, m->input_bytes);
    status = m->forward(m->self);
    text(write, entry->name);
    text(write, " output");
    number(write, tp_crc32(0, m->output(m->self), m->output_bytes));
    text(write, "\n");
  }
  return status;
}

void matrix_run(matrix_write write) {
  for (const matrix_entry *entry = matrix_entries; entry->name != NULL; entry++) {
    const tp_status status = train(write, entry);
    if (status != TP_OK || !entry->model->guards_intact(entry->model->self)) {
      text(write, entry->name);
      text(write, " failed");
      number(write, (uint32_t)status);
      text(write, "\n");
    }
  }
  text(write, "done\n");
}

const tp_model tp_device_model = {.name = "matrix"};

#ifdef __arm__ /* main() initialises the device; on the host the test calls matrix_run itself */
#include "tinypeft/tp_board.h"

tp_status tp_device_init(void) {
  matrix_run(tp_board_write);
  return TP_OK;
}
#else
tp_status tp_device_init(void) { return TP_OK; }
#endif
