/* What the generated sources define for the firmware's main() and the host twin. */
#ifndef TP_DEVICE_H
#define TP_DEVICE_H

#include "tinypeft/tp_model.h"
#include "tinypeft/tp_security.h"

extern const tp_model tp_device_model;

/* What the platform can do. The generated one is weak: it checks signatures where the project was generated with a key,
 * and nothing else; a platform that can do more defines its own. */
extern const tp_security tp_device_security;

/* Set up the model's context: guard words, adapter. Called once, before any function of tp_device_model.
 * An error makes the server answer every request with it. */
tp_status tp_device_init(void);

#ifdef TP_STORE
/* Mount the store on the board's flash, after tp_device_init(), and let serve what is active there. Always gives the
 * adapters; *status says what went wrong: without a store, or where what was active cannot serve, the base model does. */
struct tp_adapters *tp_device_adapters(tp_status *status);
#endif

#endif
