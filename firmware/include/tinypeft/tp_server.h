/* Answers a host's commands on a byte stream, as SMP (MCUmgr) does: any SMP client can give them.
 *
 * Every payload is a CBOR map, in any order of keys; requests may hold further ones. An error of a group is
 * {"err": {"group", "rc"}}, in SMP version 1 {"rc"}; what is wrong with a request itself is {"rc"}: 3 for a map that is
 * malformed or lacks a key, 8 for an unknown group or command, 7 for an answer that does not fit.
 *
 * Group 0, OS management
 *   0 echo          W d                    r
 *   5 reset         W                      the answer is sent first
 *   6 parameters    R                      buf_size, buf_count
 *   7 application   R format?              output: s the model, n r v the firmware's version, m the board, p i its
 *                                          processor, o tinypeft; a all, in this order
 *
 * Group TP_GROUP_MODEL; rc is -tp_status. R marks read requests, W write requests, ? what may be left out. Numbers are
 * integers but for floats, marked f, and truth values, marked b; byte strings x hold little-endian values.
 *   INFO           R                       protocol, payload (TP_MAX_PAYLOAD), sizes in bytes of input, output, logits,
 *                                          adapter, training, package, arena, target; classes, samples, sample (bytes
 *                                          of each), fingerprint x, name
 *   WRITE          W object off data x     off, behind what was written
 *   READ           R object off? len?      off, data x: at most `len`, and at most what fits
 *   INFER          W input? run            output x, where it fits
 *   TRAIN_STEP     W label? rate f input? run            loss f, sane b: the masters are
 *   UPDATE         W rate f run            sane b
 *   RESET_ADAPTER  W seed? run             without a seed: of the platform's entropy, where the device keeps adapters
 *   REQUANTIZE     W run
 *   EXPORT_ADAPTER W                       len, now at the start of STAGING
 *   LOAD_ADAPTER   W len, at the start of STAGING
 *   STATS          R                       stack, stack_used, guards b: they are intact; received, dropped: messages
 *   EVALUATE       W label? input? run     loss (Q16.16), right
 *   FIT            W samples (the first of SAMPLES) epochs rate f, and what of tp_fit.h and tp_schedule.h is not 0:
 *                    seed held_back held_back_share patience guards max_undone replayed min_gain
 *                    schedule warmup_steps total_steps final_fraction f
 *                                          learned, held_back, epochs, steps, updates, undone, end, kept b, epoch,
 *                                          before and after: each a map of right, loss
 *   ENCODE         W sample input? run     len, of the latents that are now that sample's
 *   TRAIN_LATENTS  W sample, of LATENTS, and as TRAIN_STEP            as TRAIN_STEP
 *   MERGE          W                       INFER reads weights with the adapter in them, until that is changed
 *   UNMERGE        W
 *
 * `input` is written to INPUT first, and must be all of it. `label` is 0 where it is left out. ENCODE, TRAIN_LATENTS
 * and LATENTS are unknown to firmware that was built without TP_LATENTS.
 *
 *   run = trace? b, dump? (an output's index)
 *
 * What is asked for so comes in front of the final response, in messages with the same header whose map holds
 * "more": true and one of
 *   trace x   records of u32 index, u32 bytes, u32 CRC-32 of the output's bytes and then its i32 exponent
 *   dump x    the next part of the output asked for, with its exponent; one message at least, be it empty
 *   fit       tp_fit_progress, of FIT, sent at once: a map of epoch, ended b, steps, total, loss, right, judged
 */
#ifndef TP_SERVER_H
#define TP_SERVER_H

#include "tinypeft/tp_frame.h"
#include "tinypeft/tp_model.h"
#include "tinypeft/tp_request.h"
#include "tinypeft/tp_response.h"

#define TP_PROTOCOL_VERSION 4u
#define TP_GROUP_OS 0u
#define TP_GROUP_MODEL 64u

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
  TP_COMMAND_MERGE,
  TP_COMMAND_UNMERGE,
  TP_COMMAND_COUNT
} tp_command;

/* OUTPUT and LOGITS cannot be written. STAGING is the arena: what is in it lasts until the next run. TARGET is what
 * TRAIN_STEP compares with where that is no label: int32 in Q16.16, one an output. SAMPLES is the store that FIT learns
 * from; a sample is an i32 label where there are classes, the target where there is one, the input, padding to 4.
 * LATENTS is what TRAIN_LATENTS and FIT begin from: of every sample of SAMPLES, without that of one, one behind the
 * other. */
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
  /* Send one line; required. */
  tp_write_function write;
  /* Size and most used bytes of the stack; NULL: unknown, reported as 0. */
  uint32_t (*stack_bytes)(void *context);
  uint32_t (*stack_high_water)(void *context);
  /* Reset the device, or return and serve on; the last that tp_server_receive() does. NULL: the command is unknown. */
  void (*reset)(void *context);
  /* What application information says; NULL: unknown. */
  const char *version;
  const char *board;
  const char *processor;
} tp_server_config;

/* All state of a server; the caller owns it. About 2 * TP_MESSAGE_MAX bytes. Fields are private, but to handlers. */
struct tp_server {
  const tp_model *model;
  const tp_server_config *config;
  struct tp_adapters *adapters; /* that the device keeps, set after tp_server_init(); NULL without tp_group_adapters.h */
  uint32_t dump;                /* of the run: an output's index, or TP_NO_DUMP */
  uint8_t trace;                /* of the run */
  uint8_t reset;                /* 1: asked for, once the answer is sent */
  tp_status fault;
  tp_status upload_status; /* of the last piece of an upload */
  tp_frame_receiver receiver;
  tp_response response;
};

#define TP_NO_DUMP UINT32_MAX

/* Carries out a command: reads the values of `request` by key and appends to `server->response`, in which a map has
 * been begun. Returns TP_OK, a negative tp_status, which becomes the group's error, or a TP_MGMT_*, which becomes
 * {"rc"}; with an error, what has been appended is dropped. The request lies in the receiver: it stays until the
 * handler returns. */
typedef int (*tp_handler_function)(tp_server *server, const tp_request *request);

/* One command. The function is called where the operation is right and every key of `required` is there. */
typedef struct {
  tp_handler_function function;
  uint16_t required; /* TP_HAS(...) | ... */
  uint8_t op; /* TP_OP_READ or TP_OP_WRITE: a command may have an entry for each */
  uint8_t command;
} tp_handler;

/* A group of commands, in a file of its own. */
typedef struct {
  uint16_t group;
  uint8_t count;       /* of handlers */
  uint8_t needs_model; /* 1: after a failed start-up of the model, its status is the answer to every command */
  uint8_t needs_store; /* 1: where the store could not be mounted, every command is TP_ERR_UNSUPPORTED */
  const tp_handler *handlers;
  uint16_t (*rc)(tp_status status); /* the group's code for an error, not 0; NULL: -status */
} tp_group;

extern const tp_group tp_group_os;    /* tp_group_os.c */
extern const tp_group tp_group_model; /* tp_group_model.c */

/* All groups of a firmware: tp_groups.c. */
extern const tp_group *const tp_groups[];
extern const uint32_t tp_group_count;

/* Start serving `model`, which must outlive the server, as must `config`. `fault` is the status of the model's own
 * start-up: any but TP_OK becomes the answer to every command that needs the model, and no function of it is called. */
void tp_server_init(tp_server *server, const tp_model *model, const tp_server_config *config, tp_status fault);

/* Take one byte from the host; answers before it returns where the byte completes a request. */
void tp_server_receive(tp_server *server, uint8_t byte);

#endif
