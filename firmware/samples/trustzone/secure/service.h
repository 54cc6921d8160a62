/* The model and all that belongs to it, in secure memory. */
#ifndef SERVICE_H
#define SERVICE_H

#include "model.h"

/* The addresses of these objects are no secret, their content is; they are global for the demonstration's attacks. */
extern uint8_t tp_model_arena[];
extern model_adapter tp_model_adapter;
extern model_training tp_model_training;

/* The model with a fresh adapter, drawn from `seed`. */
tp_status tp_service_init(uint32_t seed);

/* Inference of the secure side: MODEL_SIZE(_INPUT_BYTES) in, MODEL_SIZE(_OUTPUT_BYTES) out, both anywhere. Errors:
 * TP_ERR_STATE while another call runs. */
tp_status tp_service_infer(const void *input, void *output);

/* One training step. Errors: TP_ERR_STATE while another call runs, TP_ERR_ARGUMENT for a label out of range. */
tp_status tp_service_learn(const void *input, int32_t label, float learning_rate, float *loss);

#endif
