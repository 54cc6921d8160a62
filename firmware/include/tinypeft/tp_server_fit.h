/* The server's command FIT, and what it shares with the others. */
#ifndef TP_SERVER_FIT_H
#define TP_SERVER_FIT_H

#include "tinypeft/tp_server.h"

/* A number of a request, 0 where it is absent, that must be finite and not negative; else TP_ERR_ARGUMENT. */
tp_status tp_server_learning_rate(const tp_request *request, tp_key key, float *learning_rate);

#ifdef TP_LATENTS
/* Where the latents of a sample of the store, or of the only one, are kept. */
static inline uint8_t *tp_server_latents(const tp_model *model, uint32_t sample) {
  return (uint8_t *)model->latents(model->self) + (size_t)sample * model->latent_bytes;
}
#endif

/* `fit` of a model with a store: learn from that; streams its progress and appends the result. */
tp_status tp_server_fit(tp_server *server, const tp_request *request);

#endif
