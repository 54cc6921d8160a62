#include "tinypeft/tp_kernels.h"

void tp_pack_int4_s8(const tp_int4_params *params, const int8_t *values, const int8_t *multiplier, uint8_t *packed) {
  int32_t at = 0;
  for (int32_t r = 0; r < params->rows; r++) {
    for (int32_t i = 0; i < params->row_size; i++) {
      const uint32_t nibble = (uint32_t)(*values++ / multiplier[r]) & 0xFu;
      packed[at >> 1] = (uint8_t)(at & 1 ? packed[at >> 1] | nibble << 4 : nibble);
      at++;
    }
  }
}

void tp_unpack_int4_s8(const tp_int4_params *params, const uint8_t *packed, const int8_t *multiplier, int8_t *output) {
  int32_t at = 0;
  for (int32_t r = 0; r < params->rows; r++) {
    const int32_t times = multiplier[r];
    for (int32_t i = 0; i < params->row_size; i++) {
      const int32_t nibble = at & 1 ? packed[at >> 1] >> 4 : packed[at >> 1] & 0xF;
      *output++ = (int8_t)((nibble > 7 ? nibble - 16 : nibble) * times);
      at++;
    }
  }
}
