/* Start-up of the secure image: vector table, FPU, stack limit and seal, data. */
#include <stdint.h>

#include "fault.h"

#define SCB_VTOR (*(volatile uint32_t *)0xE000ED08u)

/* Below a sealed stack's bottom lies no address that an exception return would take for a frame. */
#define STACK_SEAL 0xFEF5EDA5u

/* Set by the linker script. */
extern uint32_t tp_stack_limit[], tp_stack_top[];
extern const uint32_t tp_data_load[];
extern uint32_t tp_data_start[], tp_data_end[];
extern uint32_t tp_bss_start[], tp_bss_end[];

int main(void);
void tp_reset(void) __attribute__((naked));
void tp_start(void) __attribute__((noreturn, used));

typedef struct {
  uint32_t *stack_top;
  void (*handlers[15])(void);
} vector_table;

/* No interrupt is enabled: the sixteen vectors of the core are all. */
__attribute__((section(".isr_vector"), used)) static const vector_table vectors = {
    tp_stack_top,
    {tp_reset, tp_fault, tp_fault, tp_fault, tp_fault, tp_fault, tp_fault, tp_fault, tp_fault, tp_fault, tp_fault,
     tp_fault, tp_fault, tp_fault, tp_fault},
};

void tp_reset(void) {
  __asm__ volatile(
      "ldr r0, =tp_stack_limit\n"
      "msr msplim, r0\n"
      "ldr r0, =0xE000ED88\n" /* CPACR: full access to the FPU */
      "ldr r1, [r0]\n"
      "orr r1, r1, #0xF00000\n"
      "str r1, [r0]\n"
      "dsb\n"
      "isb\n"
      "bl tp_start\n");
}

void tp_start(void) {
  SCB_VTOR = (uint32_t)&vectors;
  tp_stack_top[0] = STACK_SEAL;
  tp_stack_top[1] = STACK_SEAL;
  const uint32_t *from = tp_data_load;
  for (uint32_t *to = tp_data_start; to < tp_data_end; to++) {
    *to = *from++;
  }
  for (uint32_t *word = tp_bss_start; word < tp_bss_end; word++) {
    *word = 0;
  }
  (void)main();
  for (;;) {
    __asm__ volatile("wfi");
  }
}
