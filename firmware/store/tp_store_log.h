/* What the files of the store share. Log: cells, their replay and the ring of sectors (tp_store_log.c). Slots: where
 * they lie and how they become free (tp_store_slots.c). The functions of tp_store.h: tp_store_upload.c, tp_store.c. */
#ifndef TP_STORE_LOG_H
#define TP_STORE_LOG_H

#include "tinypeft/tp_store.h"

/* Bits of tp_store.map[]: the physical block; and that it was erased in full since it was last to be erased. The spare
 * block, where there is one, follows the others at map[blocks]; it never counts as clean. */
#define TP_STORE_PHYSICAL 0x7Fu
#define TP_STORE_CLEAN 0x80u

/* Read the newest sealed log sector into the fields of tp_store; with `format`, or where none is sealed, write one
 * that holds nothing. */
tp_status tp_store_log_open(tp_store *store, int format);

/* Make `entry` count, under its id; it is the active one from now on, or is not, where nothing of it can serve. One
 * with no slots and no counter is forgotten. */
tp_status tp_store_log_entry(tp_store *store, const tp_store_entry *entry, int active);

/* Make `physical` (and TP_STORE_CLEAN) the place of `block`; the place it had is the spare. */
tp_status tp_store_log_block(tp_store *store, uint32_t block, uint32_t physical);

/* Make `entry`, a changed copy, count; what is active stays so, if it still can serve. */
tp_status tp_store_put(tp_store *store, const tp_store_entry *entry);

void tp_store_give_up(tp_store_entry *entry, tp_store_part part);
int tp_store_has_slots(const tp_store_entry *entry);

/* Copy the entry of `id`; 0: there is none. */
int tp_store_copy(const tp_store *store, const char *id, tp_store_entry *entry);

/* The part of an entry that is in a slot, or TP_STORE_PARTS. */
tp_store_part tp_store_part_in(const tp_store_entry *entry, uint32_t slot);

/* Index of `id` in entries, or count. */
uint32_t tp_store_index(const tp_store *store, const char *id);

/* Slots of all blocks. */
uint32_t tp_store_slot_count(const tp_store *store);

/* Offset of a slot in the flash memory. */
uint32_t tp_store_slot_offset(const tp_store *store, uint32_t slot);

/* Whether a slot counts: an entry names it, or an upload goes there. `*bytes`, where not NULL, becomes how many bytes
 * at its start matter: whole write units. */
int tp_store_slot_counts(const tp_store *store, uint32_t slot, uint32_t *bytes);

/* An erased slot, erasing where there is none; TP_ERR_FULL. */
tp_status tp_store_take_slot(tp_store *store, uint16_t *slot);

/* Erase what does not count in `block`. */
tp_status tp_store_collect_block(tp_store *store, uint32_t block);

/* Whether all of a slot that does not count has been erased. */
int tp_store_slot_erased(const tp_store *store, uint32_t slot);

/* Program whole write units, but not those that read the same erased: none is programmed that afterwards looks as
 * though it were not. */
tp_status tp_store_program(const tp_store *store, uint32_t offset, const uint8_t *data, uint32_t length);

#endif
