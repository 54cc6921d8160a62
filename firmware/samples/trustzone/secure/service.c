/* Inference and training in secure memory; inference for non-secure callers too. */
#include "service.h"

#include <arm_cmse.h>
#include <string.h>

#include "secure_api.h"

_Alignas(8) uint8_t tp_model_arena[MODEL_SIZE(_ARENA_BYTES)];
model_adapter tp_model_adapter;
model_training tp_model_training;

static model_type model;
static uint8_t busy;

/* A non-secure interrupt may interrupt secure code, and call in again while the arena is half written. */
static int enter(void) { return __atomic_exchange_n(&busy, 1, __ATOMIC_ACQUIRE) == 0; }

static void leave(void) { __atomic_store_n(&busy, 0, __ATOMIC_RELEASE); }

tp_status tp_service_init(uint32_t seed) {
  memset(&tp_model_adapter, 0, sizeof tp_model_adapter);
  memset(&tp_model_training, 0, sizeof tp_model_training);
  const tp_status status = MODEL_NAME(_init)(&model, tp_model_arena, &tp_model_adapter, &tp_model_training);
  return status == TP_OK ? MODEL_NAME(_reset_adapter)(&model, seed) : status;
}

tp_status tp_service_infer(const void *input, void *output) {
  if (!enter()) {
    return TP_ERR_STATE;
  }
  memcpy(MODEL_NAME(_input)(&model), input, MODEL_SIZE(_INPUT_BYTES));
  const tp_status status = MODEL_NAME(_forward)(&model);
  if (status == TP_OK) {
    memcpy(output, MODEL_NAME(_output)(&model), MODEL_SIZE(_OUTPUT_BYTES));
  }
  leave();
  return status;
}

tp_status tp_service_learn(const void *input, int32_t label, float learning_rate, float *loss) {
  if (!enter()) {
    return TP_ERR_STATE;
  }
  memcpy(MODEL_NAME(_input)(&model), input, MODEL_SIZE(_INPUT_BYTES));
  const tp_status status = MODEL_NAME(_train_step)(&model, label, learning_rate, loss);
  leave();
  return status;
}

/* The caller must be allowed to do what is done for it: TT asks the SAU, the IDAU and the non-secure MPU. */
tp_status tp_secure_infer(const void *input, uint32_t input_bytes, void *output, uint32_t output_bytes) {
  if (input_bytes != MODEL_SIZE(_INPUT_BYTES) || output_bytes != MODEL_SIZE(_OUTPUT_BYTES)) {
    return TP_ERR_SIZE;
  }
  void *const source = (void *)(uintptr_t)input;
  if (cmse_check_address_range(source, input_bytes, CMSE_NONSECURE | CMSE_MPU_READ) == NULL ||
      cmse_check_address_range(output, output_bytes, CMSE_NONSECURE | CMSE_MPU_READWRITE) == NULL) {
    return TP_ERR_ARGUMENT;
  }
  return tp_service_infer(source, output);
}
