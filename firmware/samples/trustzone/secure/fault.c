/* The secure side's fault handler. */
#include "fault.h"

#include <stdint.h>

#include "retained.h"
#include "text.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))
#define SCB_AIRCR REGISTER(0xE000ED0Cu)
#define SCB_CFSR REGISTER(0xE000ED28u)
#define SCB_BFAR REGISTER(0xE000ED38u)
#define SAU_SFSR REGISTER(0xE000EDE4u)
#define SAU_SFAR REGISTER(0xE000EDE8u)

#define EXCEPTION_BUS_FAULT 5u
#define EXCEPTION_SECURE_FAULT 7u
#define BFARVALID (1u << 15)
#define SFARVALID (1u << 6)
#define FROM_SECURE (1u << 6) /* of EXC_RETURN: the registers were pushed to a secure stack */

static void address(const char *name, uint32_t status, uint32_t valid, uint32_t where) {
  tp_text(name);
  tp_text(" status ");
  tp_text_word(status);
  if ((status & valid) != 0) {
    tp_text(" address ");
    tp_text_word(where);
  }
}

void tp_fault_report(uint32_t exception_return) __attribute__((noreturn, used));
void tp_fault_report(uint32_t exception_return) {
  uint32_t exception;
  __asm__ volatile("mrs %0, ipsr" : "=r"(exception));
  tp_text("fault stage ");
  tp_text_number(tp_retained_read()->stage - 1u);
  if (exception == EXCEPTION_SECURE_FAULT) {
    address(" secure-fault", SAU_SFSR, SFARVALID, SAU_SFAR);
  } else if (exception == EXCEPTION_BUS_FAULT) {
    address(" bus-fault", SCB_CFSR, BFARVALID, SCB_BFAR);
  } else {
    tp_text(" exception ");
    tp_text_number(exception);
  }
  const int secure = (exception_return & FROM_SECURE) != 0;
  tp_text(secure ? " of the secure side" : " of the non-secure side");
  tp_text_end();
  if (!secure) {
    SCB_AIRCR = 0x05FA0000u | (SCB_AIRCR & 0xFFFFu) | (1u << 2); /* SYSRESETREQ */
  }
  for (;;) {
    __asm__ volatile("wfi");
  }
}

/* It never returns, and the stack may have run out: it starts anew. */
void tp_fault(void) {
  __asm__ volatile(
      "mov r0, lr\n"
      "ldr r1, =tp_stack_top\n"
      "msr msp, r1\n"
      "bl tp_fault_report\n");
}
