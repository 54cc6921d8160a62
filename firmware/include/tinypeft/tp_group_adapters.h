/* The adapters of a device over SMP: a group of our own, and MCUmgr's groups for files and images.
 *
 * Group TP_GROUP_ADAPTERS; rc is -tp_status. Ids are texts. What takes none acts on what serves.
 *   LIST        R from?             serving: its id, "" without a name or of the base model; base b: that serves; slots,
 *                                   unused; count; adapters: from number `from` on what fits, maps of id, confirmed and
 *                                   candidate (versions), checkpoint (its step), counter, on_test b, boots, active b,
 *                                   resident b, changed b; what is not there is left out
 *   ACTIVATE    W id keep? b        let it serve; keep, or left out: after a reset, too
 *   DEACTIVATE  W keep? b           let the base model serve
 *   CONFIRM     W id
 *   REVERT      W id                give up the candidate
 *   DELETE      W id
 *   SAVE        W id version        what serves becomes the candidate of `id`
 *   CHECKPOINT  W id step
 *   RESUME      W id                step
 *   UPLOAD      W id off data x len (at off 0)      off: of the next byte
 *   UPLOADING   R                   id, off, len, crc: of an upload in progress, its CRC-32; without one only `status`,
 *                                   how the last one ended
 *   DESCRIBE    R id                of the candidate or else the confirmed package: version, counter, method, rank, len,
 *                                   sha x, candidate b
 *   COLLECT     W                   erase what can be
 *   COMBINE     W ids weights x method?     a weighted sum serves, without a name: ids are 1 to 8, with commas between;
 *                                   weights a float32 each, little-endian; method a tp_adapters_method
 *
 * Group 8, files. The name /adapter/ID is the candidate of ID or, without one, what is confirmed.
 *   0 W off data x name len (at off 0)    off: of the next byte; what arrives twice is not written twice
 *   0 R off name                          off, data x, len (at off 0)
 *   1 R name                              len
 *   2 R name type? off? len?              type, off, len, output: crc32 (a number) or sha256 (the default)
 *   3 R                                   types
 *   4 W                                   an upload in progress is given up
 * Its codes are MCUmgr's; UPLOADING says more.
 *
 * Group 1, images. Image n is adapter number n: slot 0 what is confirmed, slot 1 the candidate.
 *   0 R                      images: as many as fit
 *   0 W hash? x confirm? b   confirm: the candidate with that SHA-256, or what serves; else activate it, for test. images */
#ifndef TP_GROUP_ADAPTERS_H
#define TP_GROUP_ADAPTERS_H

#include "tinypeft/tp_id.h"
#include "tinypeft/tp_server.h"
#include "tinypeft/tp_store.h"

#define TP_GROUP_IMAGES 1u
#define TP_GROUP_FILES 8u
#define TP_GROUP_ADAPTERS 65u

typedef enum {
  TP_ADAPTERS_LIST,
  TP_ADAPTERS_ACTIVATE,
  TP_ADAPTERS_DEACTIVATE,
  TP_ADAPTERS_CONFIRM,
  TP_ADAPTERS_REVERT,
  TP_ADAPTERS_DELETE,
  TP_ADAPTERS_SAVE,
  TP_ADAPTERS_CHECKPOINT,
  TP_ADAPTERS_RESUME,
  TP_ADAPTERS_UPLOAD,
  TP_ADAPTERS_UPLOADING,
  TP_ADAPTERS_DESCRIBE,
  TP_ADAPTERS_COLLECT,
  TP_ADAPTERS_COMBINE
} tp_adapters_command;

extern const tp_group tp_group_adapters; /* tp_group_adapters.c */
extern const tp_group tp_group_files;    /* tp_group_files.c */
extern const tp_group tp_group_images;   /* tp_group_images.c */

/* The text of a request as an id: TP_ERR_ID where it cannot be one. */
tp_status tp_group_id(tp_span text, char id[TP_ID_BYTES]);

/* Receive what lies at `off` of an upload of `len` bytes, `len` where off is 0; answers with the offset that is due. */
tp_status tp_group_receive(tp_server *server, const char *id, const tp_request *request);

/* The part of an entry that was uploaded last: its candidate, or else what is confirmed, which may not be there. `entry`
 * may be NULL. */
tp_store_part tp_group_newest(const tp_store_entry *entry);

#endif
