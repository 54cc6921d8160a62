/* The generated model under names that are those of no model in particular. The build gives TP_MODEL, its name,
 * TP_MODEL_UPPER and TP_MODEL_HEADER. */
#ifndef MODEL_H
#define MODEL_H

#include TP_MODEL_HEADER

#define MODEL_JOINED(left, right) left##right
#define MODEL_JOIN(left, right) MODEL_JOINED(left, right)
#define MODEL_NAME(suffix) MODEL_JOIN(TP_MODEL, suffix)
#define MODEL_SIZE(suffix) MODEL_JOIN(TP_MODEL_UPPER, suffix)

#if !MODEL_SIZE(_ADAPTER_BYTES)
#error "this model has no adapter to protect; generate it with one: --adapter lora"
#elif MODEL_SIZE(_BATCH_SIZE) != 1
#error "this sample updates after every training step; generate the model with --batch-size 1"
#endif

typedef TP_MODEL model_type;
typedef MODEL_NAME(_adapter) model_adapter;
typedef MODEL_NAME(_training) model_training;

_Static_assert(_Generic(&MODEL_NAME(_init),
                        tp_status (*)(model_type *, uint8_t *, model_adapter *, model_training *): 1,
                        default: 0),
               "this sample keeps the arena in one RAM; generate the model with --arena-regions ram");
_Static_assert(_Generic(&MODEL_NAME(_train_step), tp_status (*)(model_type *, int32_t, float, float *): 1, default: 0),
               "this sample trains a classifier on labels; change tp_service_learn() for other targets");

#endif
