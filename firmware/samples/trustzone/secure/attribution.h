/* Who may access what: SAU and IDAU for the core, memory and peripheral protection controllers for every bus master. */
#ifndef ATTRIBUTION_H
#define ATTRIBUTION_H

#include "tinypeft/tp_types.h"

#define TP_MEMORY_CONTROLLERS 3u

/* What is non-secure in memory_map.h becomes it, everything else stays secure; faults come to the secure side, and the
 * memory controllers are locked until the next reset. Called once, before any non-secure code runs.
 * Errors: TP_ERR_SIZE where a border in memory_map.h lies inside a block of a controller. */
tp_status tp_attribution_init(void);

/* What memory controller `index` says now of its blocks: how many there are, how many of them are non-secure. */
void tp_attribution_count(uint32_t index, uint32_t *blocks, uint32_t *nonsecure);

#endif
