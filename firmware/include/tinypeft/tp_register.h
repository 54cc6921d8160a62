/* Registers and memory by address, each access a call: a model of the hardware can stand behind drivers that use it. */
#ifndef TP_REGISTER_H
#define TP_REGISTER_H

#include <stdint.h>

static inline uint32_t tp_register_read(uint32_t address) { return *(const volatile uint32_t *)(uintptr_t)address; }

static inline void tp_register_write(uint32_t address, uint32_t value) {
  *(volatile uint32_t *)(uintptr_t)address = value;
}

/* Complete all accesses to memory before the next instruction. */
static inline void tp_register_barrier(void) { __asm__ volatile("dsb" ::: "memory"); }

/* What lies at `address`, to be read. */
static inline const void *tp_memory_at(uint32_t address) { return (const void *)(uintptr_t)address; }

#endif
