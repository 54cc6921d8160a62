/* Start-up of the non-secure image, which the secure one calls. */
#include <stdint.h>

#include "text.h"

/* Set by the linker script. */
extern uint32_t tp_stack_top[];
extern const uint32_t tp_data_load[];
extern uint32_t tp_data_start[], tp_data_end[];
extern uint32_t tp_bss_start[], tp_bss_end[];

int main(void);
void tp_reset(void) __attribute__((naked));
void tp_start(void) __attribute__((noreturn, used));

static void stop(void) {
  tp_text("a fault of the non-secure side's own\r\n");
  for (;;) {
    __asm__ volatile("wfi");
  }
}

typedef struct {
  uint32_t *stack_top;
  void (*handlers[15])(void);
} vector_table;

__attribute__((section(".isr_vector"), used)) static const vector_table vectors = {
    tp_stack_top,
    {tp_reset, stop, stop, stop, stop, stop, stop, stop, stop, stop, stop, stop, stop, stop, stop},
};

void tp_reset(void) {
  __asm__ volatile(
      "ldr r0, =0xE000ED88\n" /* CPACR: full access to the FPU */
      "ldr r1, [r0]\n"
      "orr r1, r1, #0xF00000\n"
      "str r1, [r0]\n"
      "dsb\n"
      "isb\n"
      "bl tp_start\n");
}

void tp_start(void) {
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
