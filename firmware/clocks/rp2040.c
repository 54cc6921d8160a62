/* RP2040 (RP2040 Datasheet): the second stage of the boot, which makes the flash readable as memory; then crystal, PLL
 * and the resets of what the console needs. */
#include <stdint.h>

#include "tinypeft/tp_clock.h"
#include "tp_board_config.h"

/* The boot ROM copies the first 256 bytes of the flash to RAM, checks their CRC-32 (0x04C11DB7, most significant bit
 * first, from 0xFFFFFFFF, not inverted) and calls them. They set the SSI to read by command 03h, which every flash
 * knows, at a quarter of the system clock, and start what the vector table behind them says. A test computes the CRC. */
__asm__(
    ".syntax unified\n"
    ".section .boot2, \"ax\", %progbits\n"
    ".thumb\n"
    ".balign 4\n"
    "  ldr r0, ssi\n"
    "  movs r1, #0\n"
    "  str r1, [r0, #0x08]\n" /* SSIENR: off, to be set */
    "  movs r2, #4\n"
    "  str r2, [r0, #0x14]\n" /* BAUDR: a quarter of clk_sys */
    "  ldr r2, control\n"
    "  str r2, [r0, #0x00]\n" /* CTRLR0 */
    "  str r1, [r0, #0x04]\n" /* CTRLR1: one word a read */
    "  ldr r2, transfer\n"
    "  movs r3, #0xF4\n"
    "  str r2, [r0, r3]\n" /* SPI_CTRLR0 */
    "  movs r1, #1\n"
    "  str r1, [r0, #0x08]\n" /* SSIENR: on */
    "  ldr r0, vectors\n"
    "  ldr r1, vector_table_offset\n"
    "  str r0, [r1]\n"
    "  ldmia r0!, {r1, r2}\n"
    "  msr msp, r1\n"
    "  bx r2\n"
    ".balign 4\n"
    "ssi: .word 0x18000000\n"
    "control: .word 0x001F0300\n"  /* standard SPI, frames of 32 bits, EEPROM read: send command and address, receive */
    "transfer: .word 0x03000218\n" /* command 03h of 8 bits, 24 bits of address, one line for both */
    "vectors: .word 0x10000100\n"
    "vector_table_offset: .word 0xE000ED08\n"
    ".org 252\n"
    ".word 0xF8B32FDA\n" /* the CRC */
    ".previous\n");

#define REGISTER(address) (*(volatile uint32_t *)(address))
#define SET(address) REGISTER((address) + 0x2000u)   /* writing ones sets these bits */
#define CLEAR(address) REGISTER((address) + 0x3000u) /* writing ones clears these bits */

#define RESETS_RESET 0x4000C000u
#define RESETS_RESET_DONE 0x4000C008u
#define RESETS_OF_CLK_SYS ((1u << 5) | (1u << 8) | (1u << 12)) /* IO_BANK0, PADS_BANK0, PLL_SYS */
#define RESETS_OF_CLK_PERI (1u << 22)                          /* UART0 */

#define XOSC_CTRL REGISTER(0x40024000u)
#define XOSC_STATUS REGISTER(0x40024004u)
#define XOSC_STARTUP REGISTER(0x4002400Cu)
#define XOSC_ENABLE_1_TO_15_MHZ 0x00FABAA0u
#define XOSC_STABLE (1u << 31)

#define CLK_REF_CTRL REGISTER(0x40008030u)
#define CLK_REF_SELECTED REGISTER(0x40008038u)
#define CLK_SYS_CTRL REGISTER(0x4000803Cu)
#define CLK_SYS_SELECTED REGISTER(0x40008044u)
#define CLK_PERI_CTRL REGISTER(0x40008048u)
#define CLK_REF_XOSC 2u
#define CLK_SYS_REF 0u
#define CLK_SYS_AUX 1u /* with 0 in the field of its source: PLL_SYS */
#define CLK_PERI_ENABLE (1u << 11)

#define PLL_CS REGISTER(0x40028000u)
#define PLL_PWR 0x40028004u
#define PLL_FBDIV REGISTER(0x40028008u)
#define PLL_PRIM REGISTER(0x4002800Cu)
#define PLL_LOCK (1u << 31)
#define PLL_PWR_PD (1u << 0)
#define PLL_PWR_POSTDIVPD (1u << 3)
#define PLL_PWR_VCOPD (1u << 5)

#define VCO_HZ ((uint64_t)TP_CLOCK_CRYSTAL_HZ * TP_CLOCK_PLL_FEEDBACK)
_Static_assert(VCO_HZ >= 750000000u && VCO_HZ <= 1600000000u, "the PLL oscillates at 750 to 1600 MHz");
_Static_assert(VCO_HZ / (TP_CLOCK_PLL_DIVIDER_1 * TP_CLOCK_PLL_DIVIDER_2) == TP_BOARD_CLOCK_HZ, "the system clock");

static void wait_for(volatile uint32_t *address, uint32_t mask) {
  while ((*address & mask) != mask) {
  }
}

/* A debugger's reset leaves clocks as they were, so nothing is taken for granted. */
static void reset_and_release(uint32_t blocks) {
  SET(RESETS_RESET) = blocks;
  CLEAR(RESETS_RESET) = blocks;
  wait_for(&REGISTER(RESETS_RESET_DONE), blocks);
}

void tp_clock_init(void) {
  XOSC_STARTUP = TP_CLOCK_CRYSTAL_HZ / 1000u / 256u + 1u; /* a millisecond, in 256 periods */
  XOSC_CTRL = XOSC_ENABLE_1_TO_15_MHZ;
  wait_for(&XOSC_STATUS, XOSC_STABLE);
  CLK_REF_CTRL = CLK_REF_XOSC;
  wait_for(&CLK_REF_SELECTED, 1u << CLK_REF_XOSC);
  CLK_SYS_CTRL = CLK_SYS_REF;
  wait_for(&CLK_SYS_SELECTED, 1u << CLK_SYS_REF);

  reset_and_release(RESETS_OF_CLK_SYS);
  PLL_CS = 1; /* the crystal undivided */
  PLL_FBDIV = TP_CLOCK_PLL_FEEDBACK;
  CLEAR(PLL_PWR) = PLL_PWR_PD | PLL_PWR_VCOPD;
  wait_for(&PLL_CS, PLL_LOCK);
  PLL_PRIM = (TP_CLOCK_PLL_DIVIDER_1 << 16) | (TP_CLOCK_PLL_DIVIDER_2 << 12);
  CLEAR(PLL_PWR) = PLL_PWR_POSTDIVPD;

  CLK_SYS_CTRL = CLK_SYS_AUX;
  wait_for(&CLK_SYS_SELECTED, 1u << CLK_SYS_AUX);
  CLK_PERI_CTRL = CLK_PERI_ENABLE; /* from clk_sys */
  reset_and_release(RESETS_OF_CLK_PERI);
}
