/* What the command server needs of a model. The generated sources define one `const tp_model`. */
#ifndef TP_MODEL_H
#define TP_MODEL_H

#include "tp_masters.h"
#include "tp_package.h"
#include "tp_request.h"
#include "tp_types.h"

typedef struct tp_model tp_model;
typedef struct tp_server tp_server;

/* All functions take `self`, the model's context. Buffers belong to the context; none is allocated. */
struct tp_model {
  const char *name;
  uint8_t fingerprint[32];  /* SHA-256 of the base model */
  uint32_t input_bytes;     /* bytes behind input() */
  uint32_t output_bytes;    /* bytes behind output() */
  uint32_t logits_bytes;    /* bytes behind logits(), int32 each; 0: none */
  uint32_t adapter_bytes;   /* bytes behind adapter() */
  uint32_t training_bytes;  /* bytes behind training(); 0: this firmware cannot train */
  uint32_t package_bytes;   /* size of an exported adapter package */
  uint32_t arena_bytes;     /* bytes behind arena(): the largest part; a signed package has room */
  uint32_t target_bytes;    /* bytes behind target(), int32 in Q16.16 each; 0: training takes a label, or nothing */
  uint32_t classes;         /* labels are below it; 0: training takes no label */
  uint32_t batch_size;      /* samples that train_step() sums until update(); 1: each updates */
  uint32_t samples;         /* that store() has room for; 0: there is no store */
  uint32_t sample_bytes;    /* of each: i32 label where there are classes, target, input, padded to 4 */
  uint32_t fit_bytes;       /* bytes behind fit_memory() */

  const tp_package_info *package_info; /* which packages it takes; NULL: there is no adapter */
  const tp_masters *masters;           /* NULL: its adapters cannot be combined */

  void *self;
  void *(*input)(void *self);      /* write the input here before forward() or train_step() */
  void *(*output)(void *self);     /* valid after forward() */
  void *(*logits)(void *self);     /* valid after forward() */
  void *(*adapter)(void *self);    /* integers that forward() reads */
  void *(*training)(void *self);   /* masters and optimiser state */
  void *(*arena)(void *self);      /* free to use between calls */
  void *(*target)(void *self);     /* write the target vector here before train_step() */
  void *(*store)(void *self);      /* of samples to learn from, aligned to 4 */
  void *(*fit_memory)(void *self); /* what tp_fit() needs to learn from all of them, aligned to 4 */
  int32_t *(*pending)(void *self); /* samples summed since the last update(); NULL where the batch size is 1 */

  tp_status (*forward)(void *self);
  /* One sample: forward, backward and, where the batch size is 1, the update. `label` counts where it is a class that
   * training compares with. */
  tp_status (*train_step)(void *self, int32_t label, float learning_rate, float *loss);
  /* The loss of one sample, Q16.16, and how many of its decisions are right, without learning from it. */
  tp_status (*evaluate)(void *self, int32_t label, int32_t *loss, int32_t *right);
  /* Apply the gradients summed since the last update; TP_ERR_UNSUPPORTED where the batch size is 1. */
  tp_status (*update)(void *self, float learning_rate);
  /* A fresh adapter: the base model's behaviour; masters initialised from `seed`. */
  tp_status (*reset_adapter)(void *self, uint32_t seed);
  /* Quantise the adapter again from the masters, after training() was written from outside. */
  tp_status (*requantize)(void *self);
  /* Write the package, package_bytes long, to `package`; `identity` as tp_package_write() takes it. */
  tp_status (*export_adapter)(void *self, const tp_package_identity *identity, uint8_t *package, uint32_t capacity);
  /* Check a package and take it over: all of it, or on an error nothing. */
  tp_status (*load_adapter)(void *self, const uint8_t *package, uint32_t bytes);
  /* Of a model that keeps several adapters, else NULL.
   * Memory of adapter number `index`, below TP_RESIDENT; let the one in such a memory serve, or the base model (NULL);
   * to be called when another has been written there, so that its masters follow;
   * make the masters those of what serves, which training does by itself: TP_ERR_STATE under the base model. */
  void *(*resident)(void *self, uint32_t index);
  void (*use_adapter)(void *self, void *adapter);
  void (*replaced_adapter)(void *self, const void *adapter);
  tp_status (*prepare_training)(void *self);
  /* Merge the LoRA of the adapter that serves into copies of weights, for forward() to read while that serves; end it,
   * which whatever changes an adapter does by itself, but for who writes to adapter(). NULL: there is no room. */
  void (*merge)(void *self);
  void (*unmerge)(void *self);
  /* 1 while every master is finite and has not reached TP_MASTER_LIMIT, else 0. */
  int (*masters_sane)(void *self);
  /* The command FIT: tp_server_fit() where there is a store, so that firmware without one does not carry it; else
   * NULL. */
  tp_status (*fit)(tp_server *server, const tp_request *request);
#ifdef TP_LATENTS
  /* What lies in front of the first adapter gives the same for a sample while adapters learn: its latents. */
  uint32_t latent_bytes;        /* of one sample */
  void *(*latents)(void *self); /* room for those of every sample of store(), without a store for those of one */
  /* Run what lies in front for the sample whose input is in place. */
  tp_status (*encode)(void *self, uint8_t *latents);
  /* train_step() from the latents of the sample on. */
  tp_status (*train_latents)(void *self, const uint8_t *latents, int32_t label, float learning_rate, float *loss);
#endif
  /* 1 while the guard words around the arena are as they were set, else 0. */
  int (*guards_intact)(void *self);
  /* Install a trace function, or none (NULL). */
  void (*set_trace)(void *self, tp_trace_function function, void *context);
};

#endif
