/* The store: adapters and training checkpoints on flash, whole or not at all, whenever the power fails.
 *
 * firmware/STORAGE.md has every byte. In short: the first `log_sectors` sectors are a ring of log sectors, each begun
 * with a snapshot and sealed; behind them lie slots of `slot_bytes` each. What is in a slot counts once a record in
 * the log names it. An adapter id has up to three slots:
 *   confirmed   serves; never given up but by delete or by a confirmed newer one
 *   candidate   a newer version that was uploaded: tried by tp_store_activate(), then confirmed or reverted
 *   checkpoint  the state of its training
 *
 * Every change counts wholly or not at all, whenever the power fails. TP_ERR_FLASH: it does not count; or, where all
 * changes are TP_ERR_STATE from then on, the next mount tells whether it does. Until a mount gave TP_OK, whatever
 * would change the store is TP_ERR_STATE. One caller at a time: no function may be called from an interrupt or
 * another thread while one runs. */
#ifndef TP_STORE_H
#define TP_STORE_H

#include "tp_flash.h"
#include "tp_id.h"

/* How many ids there is room for. */
#ifndef TP_STORE_ADAPTERS
#define TP_STORE_ADAPTERS 8
#endif
/* How many erase blocks of slots there may be, at most 48. */
#ifndef TP_STORE_BLOCKS
#define TP_STORE_BLOCKS 32
#endif

typedef enum { TP_STORE_CONFIRMED, TP_STORE_CANDIDATE, TP_STORE_CHECKPOINT, TP_STORE_PARTS } tp_store_part;

typedef struct {
  const tp_flash *flash;
  uint32_t log_sectors; /* at least 2; the others hold slots */
  uint32_t slot_bytes;  /* the largest object */
  uint32_t test_boots;  /* mounts that a candidate on test survives without being confirmed; 1 to 255 */
} tp_store_config;

#define TP_STORE_NO_SLOT 0xFFFFu

/* What the log says of an id. Read it; only the store writes it. */
typedef struct {
  char id[TP_ID_BYTES];
  uint16_t slot[TP_STORE_PARTS]; /* TP_STORE_NO_SLOT: there is none */
  uint8_t on_test;               /* the candidate has been activated */
  uint8_t boots;                 /* mounts since then */
  uint32_t bytes[TP_STORE_PARTS];
  uint32_t version[TP_STORE_PARTS]; /* adapter versions; of the checkpoint: its step */
  uint32_t counter;                 /* the highest security counter confirmed; outlives deleting */
} tp_store_entry;

/* The caller owns it; fields are private, but for `entries` as tp_store_find() gives them. */
typedef struct tp_store tp_store;

/* (struct tp_store is defined below the functions' contracts) */

/* Read the log; count a boot of the active id where its candidate is on test, or give that up where it had
 * `test_boots` of them. Memory in which no log is found is formatted. What `config->flash` points to must outlive the
 * store. `*reverted`, where not NULL, becomes 1 where a candidate was given up, else 0. Errors:
 *   TP_ERR_ARGUMENT  a geometry that does not work: a sector needs (TP_STORE_ADAPTERS + 5) * TP_STORE_CELL_BYTES, and
 *                    2 to TP_STORE_BLOCKS blocks must lie behind the log. A block is one sector of several slots, then
 *                    one block is kept spare, or as many sectors as one slot needs
 *   TP_ERR_GEOMETRY  a store of another geometry lies there; it is left as it is, until tp_store_format()
 *   TP_ERR_FLASH     none of the log can be read, or nothing can be written */
tp_status tp_store_mount(tp_store *store, const tp_store_config *config, int *reverted);

/* Forget everything, security counters included. After a mount: also after one that gave TP_ERR_GEOMETRY or
 * TP_ERR_FLASH. */
tp_status tp_store_format(tp_store *store);

/* The entry of `id`, or NULL; entry number `index` below tp_store_count(), in the order of their ids' first upload,
 * or NULL. An id that was deleted is listed as long as its counter is remembered: it has no slots. Entries stay where
 * they are until the next call that changes the store. */
const tp_store_entry *tp_store_find(const tp_store *store, const char *id);
const tp_store_entry *tp_store_entry_at(const tp_store *store, uint32_t index);
uint32_t tp_store_count(const tp_store *store);

/* The entry that was activated last and serves, or NULL for the base model; and which part of it serves: the
 * candidate while it is on test, else what is confirmed; TP_STORE_PARTS where neither is there. */
const tp_store_entry *tp_store_active(const tp_store *store);
tp_store_part tp_store_serving(const tp_store_entry *entry);

/* Begin an object of `bytes`, at least 1, as candidate or checkpoint of `id` in a free slot; an upload in progress is
 * given up. Collects garbage where no slot is erased, which takes as long as erasing a block and copying what it
 * holds. Errors: TP_ERR_ID for a name that is none, TP_ERR_ARGUMENT, TP_ERR_TOO_LARGE above slot_bytes, TP_ERR_FULL
 * without a free slot or room for another id. */
tp_status tp_store_begin(tp_store *store, const char *id, tp_store_part part, uint32_t bytes);

/* Append to it; TP_ERR_TOO_LARGE beyond its size, TP_ERR_STATE where none was begun. TP_ERR_FLASH gives the upload
 * up. */
tp_status tp_store_append(tp_store *store, const void *data, uint32_t length);

/* Bytes appended so far, and of how many; 0 and 0 without an upload. */
uint32_t tp_store_uploaded(const tp_store *store, uint32_t *of);

/* Read what has been appended so far, before it is committed; `store` is a tp_store. TP_ERR_ARGUMENT beyond that,
 * TP_ERR_STATE without an upload. */
tp_status tp_store_read_upload(void *store, uint32_t offset, void *data, uint32_t length);

/* Make the whole object count as the part it was begun for: a candidate (not yet on test) or a checkpoint of
 * `version`. What was that part before is free; where it served on test, what is confirmed serves again. Errors:
 * TP_ERR_STATE without an upload, TP_ERR_TRUNCATED where bytes are missing, which may follow; TP_ERR_FLASH gives the
 * upload up. */
tp_status tp_store_commit(tp_store *store, uint32_t version);
void tp_store_abort(tp_store *store);

/* Read `length` bytes from `offset` of a part; TP_ERR_ARGUMENT outside it, TP_ERR_NOT_FOUND where there is none. */
tp_status tp_store_read(const tp_store *store, const tp_store_entry *entry, tp_store_part part, uint32_t offset,
                        void *data, uint32_t length);

/* Let `id` serve from now on and after every reset: its candidate, which is then on test, or what is confirmed; NULL:
 * the base model. TP_ERR_NOT_FOUND where it has neither. */
tp_status tp_store_activate(tp_store *store, const char *id);

/* The candidate takes the place of what was confirmed, and its security counter is remembered. TP_ERR_NOT_FOUND for an
 * unknown id, TP_ERR_STATE without a candidate that is on test; TP_ERR_ROLLBACK where `counter` is below the one
 * remembered. */
tp_status tp_store_confirm(tp_store *store, const char *id, uint32_t counter);

/* Give up the candidate. TP_ERR_NOT_FOUND for an unknown id, TP_ERR_STATE without a candidate. */
tp_status tp_store_revert(tp_store *store, const char *id);

/* Give up all of an id (TP_STORE_PARTS) or its checkpoint, and an upload of it; the base model serves where it did.
 * TP_ERR_NOT_FOUND where nothing is there, TP_ERR_ARGUMENT for another part. */
tp_status tp_store_delete(tp_store *store, const char *id, tp_store_part part);

/* Erase what can be erased, so that the next uploads need not. An upload in progress goes on. */
tp_status tp_store_collect(tp_store *store);

/* Slots in all, and how many hold nothing that counts. */
uint32_t tp_store_slots(const tp_store *store, uint32_t *unused);

#define TP_STORE_CELL_BYTES 64u

/* What is read most comes first: instructions that reach it are shorter. */
struct tp_store {
  tp_store_config config;
  struct {
    uint16_t slot; /* TP_STORE_NO_SLOT: no upload */
    uint16_t part;
    uint32_t bytes, done; /* both 0: no upload */
    char id[TP_ID_BYTES];
    uint8_t unit[TP_FLASH_WRITE_UNIT_MAX]; /* bytes that do not yet fill a write unit */
  } upload;
  uint32_t count;
  uint32_t active;              /* index of the entry that was activated, or TP_STORE_NO_SLOT */
  uint32_t mounted;             /* 1 once the log has been read */
  uint32_t slot_stride;         /* slot_bytes, rounded up to the write unit */
  uint32_t block_sectors;       /* sectors of a block */
  uint32_t block_slots;         /* slots of a block */
  uint32_t blocks;              /* blocks that hold slots, without the spare; 0: no geometry */
  uint32_t log_sector;          /* that is being written, */
  uint32_t log_sequence;        /* its number, */
  uint32_t log_cell;            /* and the next free cell there */
  uint32_t next_slot;           /* where the search for a free slot begins */
  uint8_t map[TP_STORE_BLOCKS]; /* of each block the physical one that holds it, and whether it was erased in full */
  tp_store_entry entries[TP_STORE_ADAPTERS];
};

#endif
