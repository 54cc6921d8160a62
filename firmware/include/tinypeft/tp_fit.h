/* A device trains by itself: from samples that it holds, for epochs, with guard rails. tinypeft/fit.py is the same in
 * Python, bit for bit: order of samples, decisions, adapter.
 *
 * Some samples may be held back: of a class with n of them held_back + n * held_back_share, chosen by the seed, at most
 * n - 1. On them an adapter is judged, by the number of right decisions and, where that is equal, by the loss. The last
 * `replayed` samples are of others, learned from so that what the base knows is not forgotten; they are never held back.
 *
 * Guard rails
 *   TP_FIT_DO_NO_HARM  the new adapter stays only if it is not worse than the one from before, and its loss lower by
 *                      min_gain, else that is put back
 *   TP_FIT_UNDO        an update after which a master is not finite or has reached TP_MASTER_LIMIT is undone, with the
 *                      batch that led to it; training ends with the max_undone-th
 *   patience           training ends after so many epochs that were not better than the best, which is what stays
 * What is put back or undone is so to the byte, adapter and training state. */
#ifndef TP_FIT_H
#define TP_FIT_H

#include "tinypeft/tp_model.h"

enum { TP_FIT_DO_NO_HARM = 1, TP_FIT_UNDO = 2, TP_FIT_ALL_GUARDS = 3 };

/* How well an adapter does on what is held back. */
typedef struct {
  uint32_t right; /* right decisions: one a sample, one an output of target vectors, none of losses without classes */
  int64_t loss;   /* sum over the samples, Q16.16 */
} tp_fit_score;

/* How far it is. */
typedef struct {
  uint32_t epoch; /* from 1; 0 while the adapter from before is judged */
  uint32_t ended; /* 1: the epoch is complete and, with patience, judged */
  uint32_t steps; /* samples learned from so far, in all epochs */
  uint32_t total; /* of so many, unless it ends early */
  int64_t loss;   /* sum of this epoch's losses, each of before its step, Q16.16 */
  tp_fit_score score; /* of the last adapter that was judged */
} tp_fit_progress;

typedef struct {
  uint32_t epochs; /* 1 to 65535 */
  uint32_t seed;   /* of the choice of what is held back and of the order, which is drawn anew every epoch */
  /* The learning rate of update number `update`, from 0, those that are undone counted; finite, not negative. */
  float (*learning_rate)(const void *schedule, uint32_t update);
  const void *schedule;
  uint32_t held_back;       /* of each class */
  uint32_t held_back_share; /* the same as a share of each class, Q0.16, rounded to the nearest; is added */
  uint32_t patience;        /* 0: never end early, and the last adapter is the one that is judged */
  uint32_t guards;          /* TP_FIT_* */
  uint32_t max_undone;      /* at least 1 with TP_FIT_UNDO */
  uint32_t replayed;        /* of the samples, the last so many */
  uint32_t min_gain;        /* Q16.16, of the summed loss of what is held back; 0: the loss may be any */
  /* Called now and then, at the least every 16 runs of the model and at the end of an epoch; NULL: not. */
  void (*progress)(void *context, const tp_fit_progress *progress);
  void *context;
} tp_fit_config;

/* Where samples come from. `context` goes to both functions. */
typedef struct {
  void *context;
  uint32_t count; /* 1 to 65535 */
  /* The class of a sample, 0 <= class < model->classes. Not called where training takes no label. */
  int32_t (*label)(void *context, uint32_t index);
  /* Copy a sample's input and, where training takes a vector, its target; each into as many bytes as the model says. */
  tp_status (*load)(void *context, uint32_t index, void *input, void *target);
#ifdef TP_LATENTS
  /* Room for a sample's latents, model->latent_bytes: the first epoch fills it, and every step begins behind them. NULL:
   * every step begins at the input. The adapter is the same. */
  void *(*latents)(void *context, uint32_t index);
#endif
} tp_samples;

/* The caller's, aligned to 4 bytes, at least tp_fit_memory_bytes(): two copies of adapter and training state, the best
 * so far and the one before an update; a number a sample, two a class. */
typedef struct {
  void *data;
  uint32_t bytes;
} tp_fit_memory;

#define TP_FIT_ALIGN(bytes) (((bytes) + 3u) & ~3u)
#define TP_FIT_MEMORY_BYTES(adapter_bytes, training_bytes, classes, samples)                 \
  (2u * (TP_FIT_ALIGN(adapter_bytes) + TP_FIT_ALIGN(training_bytes)) + 4u * (classes) + 4u + \
   TP_FIT_ALIGN(2u * (samples)))

uint32_t tp_fit_memory_bytes(const tp_model *model, uint32_t samples);

/* Whether all of `count` masters are finite and below TP_MASTER_LIMIT, where updates stop them. */
int tp_masters_sane(const float *master, uint32_t count);

typedef enum { TP_FIT_ALL_EPOCHS, TP_FIT_OUT_OF_PATIENCE, TP_FIT_TOO_MANY_UNDONE } tp_fit_end;

typedef struct {
  uint32_t learned;   /* samples to learn from */
  uint32_t held_back; /* samples held back */
  uint32_t epochs;    /* begun */
  uint32_t steps;     /* samples learned from, in all epochs */
  uint32_t updates;   /* that were not undone */
  uint32_t undone;    /* updates */
  uint32_t end;       /* tp_fit_end: why training ended */
  uint32_t kept;      /* 1: a new adapter; 0: the one from before is back */
  uint32_t epoch;     /* whose adapter was judged last, from 1: the best with patience, else the last */
  tp_fit_score before; /* the adapter from before */
  tp_fit_score after;  /* the new adapter, also where it was not kept */
} tp_fit_result;

/* Train from where the adapter is. `result` is valid with TP_OK.
 *
 * Errors: TP_ERR_UNSUPPORTED for a model that cannot train; TP_ERR_SIZE where the memory is too small; TP_ERR_ARGUMENT
 * for a setting or a label out of range, samples that wait for an update, or guards that judge with nothing held back;
 * or what `load` or the model says. After an error the adapter is the one from before or the best so far. */
tp_status tp_fit(const tp_model *model, const tp_fit_config *config, const tp_samples *samples,
                 const tp_fit_memory *memory, tp_fit_result *result);

#endif
