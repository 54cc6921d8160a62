/* Answers a host's commands about one model on a byte stream.
 *
 * Payloads, all little-endian. A request is answered by any number of stream frames (TP_FLAG_MORE) and one final
 * response. A final response begins with i32 tp_status; an error's goes on with its text, and what follows here is
 * of TP_OK. Group is TP_GROUP; commands marked R are read requests, W write requests.
 *
 *   command          request                                          final response after the status
 *   INFO           R -                                                u32 protocol, max_payload, input_bytes,
 *                                                                     output_bytes, logits_bytes, adapter_bytes,
 *                                                                     training_bytes, package_bytes, arena_bytes,
 *                                                                     target_bytes, classes, samples, sample_bytes,
 *                                                                     u8 fingerprint[32],
 *                                                                     name without a 0
 *   WRITE          W u32 object, u32 offset, bytes                    -
 *   READ           R u32 object, u32 offset, u32 length               - (the bytes come as TP_STREAM_DATA)
 *   INFER          W run                                              -
 *   TRAIN_STEP     W i32 label, f32 learning rate, run                f32 loss, u32 masters_sane
 *   UPDATE         W f32 learning rate, run                           u32 masters_sane
 *   RESET_ADAPTER  W u32 seed, run                                    -
 *   REQUANTIZE     W run                                              -
 *   EXPORT_ADAPTER W -                                                u32 bytes, now at the start of STAGING
 *   LOAD_ADAPTER   W u32 bytes, at the start of STAGING               -
 *   STATS          R -                                                u32 stack_bytes, stack_high_water, guards_intact
 *   EVALUATE       W i32 label, run                                   i32 loss (Q16.16), right
 *   FIT            W u32 samples (the first of SAMPLES), epochs,      u32 learned, held_back, epochs, steps, updates,
 *                    seed, held_back, held_back_share, patience,      undone, end, kept, epoch, then before and after:
 *                    guards, max_undone; kind, f32 learning rate,     u32 right, i64 loss each; as in tp_fit.h
 *                    u32 warmup_steps, total_steps, f32
 *                    final_fraction, as in tp_schedule.h
 *   ENCODE         W u32 sample, run                                  u32 bytes of the input's latents, now that sample's
 *   TRAIN_LATENTS  W u32 sample, of LATENTS, then as TRAIN_STEP       as TRAIN_STEP
 *
 * ENCODE, TRAIN_LATENTS and LATENTS are unknown to firmware that was built without TP_LATENTS.
 *
 *   run = u32 trace (0: no), i32 dump (an output's index, -1: none)
 *
 * A stream frame begins with u32 kind, one of TP_STREAM_*:
 *   DATA   bytes
 *   TRACE  records of u32 index, u32 bytes, u32 CRC-32 of the output's bytes and then its i32 exponent
 *   DUMP   i32 exponent, bytes: the next part of the output asked for; one frame at least, be it empty
 *   FIT    u32 epoch, ended, steps, total, i64 loss, u32 right, i64 loss: tp_fit_progress, sent at once
 */
#ifndef TP_SERVER_H
#define TP_SERVER_H

#include "tinypeft/tp_frame.h"
#include "tinypeft/tp_model.h"
#include "tinypeft/tp_response.h"

#define TP_PROTOCOL_VERSION 3u
#define TP_GROUP 64u

typedef enum {
  TP_COMMAND_INFO,
  TP_COMMAND_WRITE,
  TP_COMMAND_READ,
  TP_COMMAND_INFER,
  TP_COMMAND_TRAIN_STEP,
  TP_COMMAND_UPDATE,
  TP_COMMAND_RESET_ADAPTER,
  TP_COMMAND_REQUANTIZE,
  TP_COMMAND_EXPORT_ADAPTER,
  TP_COMMAND_LOAD_ADAPTER,
  TP_COMMAND_STATS,
  TP_COMMAND_EVALUATE,
  TP_COMMAND_FIT,
  TP_COMMAND_ENCODE,
  TP_COMMAND_TRAIN_LATENTS,
  TP_COMMAND_COUNT
} tp_command;

/* OUTPUT and LOGITS cannot be written. STAGING is the arena: what is in it lasts until the next run. TARGET is what
 * TRAIN_STEP compares with where that is no label: int32 in Q16.16, one an output. SAMPLES is the store that FIT learns from; a
 * sample is an i32 label where there are classes, the target where there is one, the input, padding to 4. LATENTS is what TRAIN_LATENTS
 * and FIT begin from: of every sample of SAMPLES, without that of one, one behind the other. */
typedef enum {
  TP_OBJECT_INPUT,
  TP_OBJECT_OUTPUT,
  TP_OBJECT_LOGITS,
  TP_OBJECT_ADAPTER,
  TP_OBJECT_TRAINING,
  TP_OBJECT_STAGING,
  TP_OBJECT_TARGET,
  TP_OBJECT_SAMPLES,
  TP_OBJECT_LATENTS
} tp_object;

/* The byte stream and what the server cannot know. `context` goes to every function. */
typedef struct {
  void *context;
  /* Send one frame; required. Returns when `data` may be reused. */
  tp_write_function write;
  /* Size and most used bytes of the stack; NULL: unknown, reported as 0. */
  uint32_t (*stack_bytes)(void *context);
  uint32_t (*stack_high_water)(void *context);
} tp_server_config;

/* All state of a server; the caller owns it. About 2 * TP_FRAME_MAX bytes. Fields are private. */
struct tp_server {
  const tp_model *model;
  tp_server_config config;
  tp_status fault;
  tp_frame_receiver receiver;
  tp_response response;
  uint32_t trace;
  int32_t dump;
};

/* Start serving `model`, which must outlive the server. `fault` is the status of the model's own start-up: any but
 * TP_OK becomes the answer to every request, and no function of the model is called. */
void tp_server_init(tp_server *server, const tp_model *model, const tp_server_config *config, tp_status fault);

/* Take one byte from the host; answers before it returns where the byte completes a request. */
void tp_server_receive(tp_server *server, uint8_t byte);

#endif
