/* The groups of commands that this firmware answers. */
#ifdef TP_STORE
#include "tinypeft/tp_group_adapters.h"
#else
#include "tinypeft/tp_server.h"
#endif

const tp_group *const tp_groups[] = {
    &tp_group_os,
    &tp_group_model,
#ifdef TP_STORE
    &tp_group_adapters,
    &tp_group_files,
    &tp_group_images,
#endif
};

const uint32_t tp_group_count = sizeof tp_groups / sizeof tp_groups[0];
