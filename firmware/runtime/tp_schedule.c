#include "tinypeft/tp_schedule.h"

#include "tinypeft/tp_arithmetic.h"

float tp_learning_rate(const tp_schedule *schedule, uint32_t step) {
  if (step < schedule->warmup_steps) {
    const float part = (float)(step + 1u) / (float)schedule->warmup_steps;
    return schedule->learning_rate * part;
  }
  if (schedule->kind == TP_SCHEDULE_CONSTANT) {
    return schedule->learning_rate;
  }
  const uint32_t behind = step - schedule->warmup_steps;
  const uint32_t steps = schedule->total_steps - schedule->warmup_steps;
  const float progress = behind < steps ? (float)behind / (float)steps : 1.0f;
  const float left =
      schedule->kind == TP_SCHEDULE_LINEAR ? 1.0f - progress : 0.5f * (1.0f + tp_cos_pi_f32(progress));
  const float above = (1.0f - schedule->final_fraction) * left;
  return schedule->learning_rate * (schedule->final_fraction + above);
}
