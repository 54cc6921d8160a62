/* In front of the firmware's header of this name: every access goes to a model of the flash controller. */
#ifndef TP_REGISTER_H
#define TP_REGISTER_H

#include <stdint.h>

uint32_t tp_register_read(uint32_t address);
void tp_register_write(uint32_t address, uint32_t value);
const void *tp_memory_at(uint32_t address);

static inline void tp_register_barrier(void) {}

#endif
