/* The server's command FIT, and what it shares with the others. */
#ifndef TP_SERVER_FIT_H
#define TP_SERVER_FIT_H

#include "tinypeft/tp_server.h"

#define TP_SERVER_FIT_BYTES 60

/* A finite learning rate that is not negative; else TP_ERR_ARGUMENT. */
tp_status tp_server_learning_rate(const uint8_t *bytes, float *learning_rate);

/* `fit` of a model with a store: learn from that; streams its progress and appends the result. */
tp_status tp_server_fit(tp_server *server, const uint8_t *request, uint32_t length);

#endif
