/* The memory of adapters, between the files that implement tp_adapters.h. */
#ifndef TP_ADAPTERS_MEMORY_H
#define TP_ADAPTERS_MEMORY_H

#include "tinypeft/tp_adapters.h"

/* Let a resident, or with TP_ADAPTERS_BASE the base model, serve. */
void tp_adapters_serve(tp_adapters *adapters, uint32_t index);

/* Nothing is in that memory, as far as anyone knows. */
void tp_resident_forget(tp_resident *resident);

/* Memory to load into: free, or what was used least recently and was not trained; never what serves, unless it is alone.
 * What is returned is free. */
uint32_t tp_adapters_make_room(tp_adapters *adapters);

/* The entry of `id`: TP_ERR_UNSUPPORTED without a store, TP_ERR_NOT_FOUND. */
tp_status tp_adapters_find(const tp_adapters *adapters, const char *id, const tp_store_entry **entry);

/* The least security counter that a package of `id` may have: the highest that was confirmed, here or by the platform. */
tp_status tp_adapters_least_counter(const tp_adapters *adapters, const char *id, uint32_t *least);

/* Whether a part of the store can be used, and its header. */
tp_status tp_adapters_check(const tp_adapters *adapters, const tp_store_entry *entry, tp_store_part part,
                            tp_package_header *header);

/* Read such a part into the memory of a resident; on an error what is there is undefined. */
tp_status tp_adapters_read(tp_adapters *adapters, const tp_store_entry *entry, tp_store_part part,
                           const tp_package_header *header, uint32_t index);

/* Another adapter has been written into the memory of a resident. */
void tp_adapters_written(tp_adapters *adapters, uint32_t index);

#endif
