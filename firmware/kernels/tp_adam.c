#include "tinypeft/tp_arithmetic.h"
#include "tinypeft/tp_optimizer.h"

/* The learning rate with both moments' bias corrected. */
static float step_size(float learning_rate, const float *powers) {
  const float numerator = learning_rate * tp_sqrt_f32(1.0f - powers[1]);
  return numerator / (1.0f - powers[0]);
}

/* A moment moved towards `value`. */
static float moved(float moment, float value, float gain) {
  const float change = (value - moment) * gain;
  return tp_limit_f32(moment + change, TP_MASTER_LIMIT);
}

/* The decayed master less a step along the first moment; `root` is that of the second. */
static float descended(const tp_adam_params *adam, float master, float learning_rate, float size, float moment,
                       float root) {
  float weight = master;
  if (adam->weight_decay != 0.0f) {
    const float decay = (learning_rate * adam->weight_decay) * weight;
    weight = weight - decay;
  }
  const float change = (size * moment) / (root + adam->epsilon);
  return tp_limit_f32(weight - change, TP_MASTER_LIMIT);
}

void tp_adam_step_f32(const tp_adam_step_params *params, float *powers) {
  powers[0] = powers[0] * params->beta_1;
  powers[1] = powers[1] * params->beta_2;
}

void tp_adam_f32(const void *params, int32_t first, int32_t count, const float *gradient, float learning_rate,
                 float *master, void *const *states) {
  const tp_adam_params *adam = params;
  float *first_moment = states[0];
  float *second_moment = states[1];
  const float size = step_size(learning_rate, states[2]);
  for (int32_t i = 0; i < count; i++) {
    const int32_t at = first + i;
    first_moment[at] = moved(first_moment[at], gradient[i], adam->gain_1);
    second_moment[at] = moved(second_moment[at], gradient[i] * gradient[i], adam->gain_2);
    const float root = tp_sqrt_f32(second_moment[at]);
    master[at] = descended(adam, master[at], learning_rate, size, first_moment[at], root);
  }
}

/* The factor from values up to `largest` to codes up to `codes`. */
static float to_codes(float codes, float largest) { return largest > 0.0f ? codes / largest : 0.0f; }

/* One block: `first`, `roots`, `master` and `gradient` at its first element, the scales of the block. */
static void update_block(const tp_adam_params *adam, int32_t count, const float *gradient, float learning_rate,
                         float size, float *master, int8_t *first, uint8_t *roots, float *first_scale,
                         float *second_scale) {
  float moment[TP_ADAM8_BLOCK];
  float root[TP_ADAM8_BLOCK];
  float largest_moment = 0.0f;
  float largest_root = 0.0f;
  for (int32_t i = 0; i < count; i++) {
    const float earlier_root = (float)roots[i] * *second_scale;
    moment[i] = moved((float)first[i] * *first_scale, gradient[i], adam->gain_1);
    root[i] = tp_sqrt_f32(moved(earlier_root * earlier_root, gradient[i] * gradient[i], adam->gain_2));
    master[i] = descended(adam, master[i], learning_rate, size, moment[i], root[i]);
    const float magnitude = moment[i] < 0.0f ? -moment[i] : moment[i];
    largest_moment = magnitude > largest_moment ? magnitude : largest_moment;
    largest_root = root[i] > largest_root ? root[i] : largest_root;
  }
  const float moment_codes = to_codes(127.0f, largest_moment);
  const float root_codes = to_codes(255.0f, largest_root);
  for (int32_t i = 0; i < count; i++) {
    first[i] = (int8_t)tp_clamp_s32(tp_round_to_s32(moment[i] * moment_codes), -127, 127);
    roots[i] = (uint8_t)tp_clamp_s32(tp_round_to_s32(root[i] * root_codes), root[i] > 0.0f ? 1 : 0, 255);
  }
  *first_scale = largest_moment / 127.0f;
  *second_scale = largest_root / 255.0f;
}

void tp_adam8_f32(const void *params, int32_t first, int32_t count, const float *gradient, float learning_rate,
                  float *master, void *const *states) {
  const tp_adam8_params *adam8 = params;
  int8_t *first_moment = states[0];
  uint8_t *second_moment = states[1];
  float *first_scale = states[2];
  float *second_scale = states[3];
  const float size = step_size(learning_rate, states[4]);
  const int32_t blocks = (adam8->row_size + TP_ADAM8_BLOCK - 1) / TP_ADAM8_BLOCK;
  int32_t block = first / adam8->row_size * blocks;
  int32_t column = 0;
  for (int32_t done = 0; done < count; block++) {
    const int32_t at = first + done;
    const int32_t length = tp_min_s32(TP_ADAM8_BLOCK, adam8->row_size - column);
    update_block(&adam8->adam, length, &gradient[done], learning_rate, size, &master[at], &first_moment[at],
                 &second_moment[at], &first_scale[block], &second_scale[block]);
    done += length;
    column = column + length < adam8->row_size ? column + length : 0;
  }
}
