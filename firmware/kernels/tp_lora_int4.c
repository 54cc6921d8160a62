#include "tinypeft/tp_kernels.h"

void tp_lora_quantize_int4_f32(const tp_lora_quantize_params *params, const float *master_A, const float *master_B,
                               uint8_t *lora_A, int8_t *hidden_shift, uint8_t *lora_B, int8_t *lora_shift,
                               float *a_scale, int32_t *l1, float *gradient_unit, int8_t *a_multiplier,
                               int8_t *b_multiplier, void *scratch) {
  const tp_int4_params a_rows = {params->rank, params->fan_in};
  const tp_int4_params b_rows = {params->output_c, params->rank};
  int8_t *a = scratch;
  int8_t *b = a + params->rank * params->fan_in;
  tp_lora_quantize_f32(params, master_A, master_B, a, hidden_shift, b, lora_shift, a_scale, l1, gradient_unit,
                       a_multiplier, b_multiplier);
  tp_pack_int4_s8(&a_rows, a, a_multiplier, lora_A);
  tp_pack_int4_s8(&b_rows, b, b_multiplier, lora_B);
}

void tp_lora_restore_int4_f32(const tp_lora_quantize_params *params, const uint8_t *lora_A, const int8_t *hidden_shift,
                              const uint8_t *lora_B, const int8_t *lora_shift, const float *a_scale,
                              const int8_t *a_multiplier, const int8_t *b_multiplier, float *master_A, float *master_B,
                              int32_t *l1, float *gradient_unit, void *scratch) {
  const tp_int4_params a_rows = {params->rank, params->fan_in};
  const tp_int4_params b_rows = {params->output_c, params->rank};
  int8_t *a = scratch;
  int8_t *b = a + params->rank * params->fan_in;
  tp_unpack_int4_s8(&a_rows, lora_A, a_multiplier, a);
  tp_unpack_int4_s8(&b_rows, lora_B, b_multiplier, b);
  tp_lora_restore_f32(params, a, hidden_shift, b, lora_shift, a_scale, master_A, master_B, l1, gradient_unit);
}
