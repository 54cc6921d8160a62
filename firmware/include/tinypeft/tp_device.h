/* What the generated sources define for the firmware's main() and the host twin. */
#ifndef TP_DEVICE_H
#define TP_DEVICE_H

#include "tinypeft/tp_model.h"

extern const tp_model tp_device_model;

/* Set up the model's context: guard words, adapter. Called once, before any function of tp_device_model.
 * An error makes the server answer every request with it. */
tp_status tp_device_init(void);

#endif
