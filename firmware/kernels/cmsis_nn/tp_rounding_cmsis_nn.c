#include "tp_cmsis_nn.h"

tp_status tp_rounding_cmsis_nn_check(void) {
  const int8_t one = 1;
  int8_t rounded = 0;
  /* 1 * (1/2 - 2^-32): to 1 and then to 1/2 and away from zero, or down at once. */
  (void)arm_elementwise_mul_s8(&one, &one, 0, 0, &rounded, 0, INT32_MAX, -1, INT8_MIN, INT8_MAX, 1);
  return rounded == 1 ? TP_OK : TP_ERR_UNSUPPORTED;
}
