/* The AN505 image's security set-up. Sources: Armv8-M Architecture Reference Manual (SAU, SCB), Arm DDI 0571 (memory
 * protection controllers), Arm ECM0601256 (security control of the IoT Kit), Arm DAI 0505 (what lies where). */
#include "attribution.h"

#include "memory_map.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))

#define SCB_AIRCR REGISTER(0xE000ED0Cu)
#define SCB_SHCSR REGISTER(0xE000ED24u)
#define SCB_NSACR REGISTER(0xE000ED8Cu)
#define FPU_FPCCR REGISTER(0xE000EF34u)
#define SAU_CTRL REGISTER(0xE000EDD0u)
#define SAU_RNR REGISTER(0xE000EDD8u)
#define SAU_RBAR REGISTER(0xE000EDDCu)
#define SAU_RLAR REGISTER(0xE000EDE0u)

#define SAU_ENABLE 1u
#define SAU_CALLABLE 2u

/* The IoT Kit's secure privilege control block. */
#define SPC_SECRESPCFG REGISTER(0x50080010u)
#define SPC_NSCCFG REGISTER(0x50080014u)
#define SPC_APBNSPPCEXP1 REGISTER(0x50080084u)

#define UART1_PORT (1u << 6)

/* A memory protection controller. */
#define MPC_CTRL(base) REGISTER((base) + 0x00u)
#define MPC_BLK_CFG(base) REGISTER((base) + 0x14u)
#define MPC_BLK_IDX(base) REGISTER((base) + 0x18u)
#define MPC_BLK_LUT(base) REGISTER((base) + 0x1Cu)

#define MPC_RESPOND (1u << 4) /* a refused access is a bus error, instead of reading zeros */
#define MPC_LOCKDOWN (1u << 31)
#define MPC_BUSY (1u << 31) /* of BLK_CFG */

typedef struct {
  uint32_t base, origin, length; /* registers; the memory behind it, at its non-secure address */
} controller;

static const controller controllers[TP_MEMORY_CONTROLLERS] = {
    {0x58007000u, 0x00000000u, 0x00400000u}, /* SSRAM1 */
    {0x58008000u, 0x28000000u, 0x00200000u}, /* SSRAM2 */
    {0x58009000u, 0x28200000u, 0x00200000u}, /* SSRAM3 */
};

typedef struct {
  uint32_t origin, length;
} range;

static const range nonsecure[] = {
    {NONSECURE_CODE_ORIGIN, NONSECURE_CODE_LENGTH},
    {NONSECURE_RAM_ORIGIN, NONSECURE_RAM_LENGTH},
};

#define RANGES (sizeof nonsecure / sizeof nonsecure[0])

static uint32_t block_bytes(const controller *c) {
  while ((MPC_BLK_CFG(c->base) & MPC_BUSY) != 0) {
  }
  return 1u << ((MPC_BLK_CFG(c->base) & 0xFu) + 5u);
}

static int is_nonsecure(uint32_t address) {
  int found = 0;
  for (uint32_t i = 0; i < RANGES; i++) {
    found |= address - nonsecure[i].origin < nonsecure[i].length;
  }
  return found;
}

/* A set bit lets only non-secure accesses pass, a clear one only secure ones. */
static tp_status protect(const controller *c) {
  const uint32_t size = block_bytes(c);
  for (uint32_t i = 0; i < RANGES; i++) {
    if (nonsecure[i].origin % size != 0 || nonsecure[i].length % size != 0) {
      return TP_ERR_SIZE;
    }
  }
  MPC_CTRL(c->base) = MPC_RESPOND;
  for (uint32_t word = 0; word * 32u * size < c->length; word++) {
    uint32_t bits = 0;
    for (uint32_t bit = 0; bit < 32u; bit++) {
      bits |= (uint32_t)is_nonsecure(c->origin + (word * 32u + bit) * size) << bit;
    }
    MPC_BLK_IDX(c->base) = word;
    MPC_BLK_LUT(c->base) = bits;
  }
  MPC_CTRL(c->base) = MPC_RESPOND | MPC_LOCKDOWN;
  return TP_OK;
}

static void attribute(uint32_t region, uint32_t origin, uint32_t length, uint32_t flags) {
  SAU_RNR = region;
  SAU_RBAR = origin;
  SAU_RLAR = ((origin + length - 1u) & ~31u) | flags | SAU_ENABLE;
}

tp_status tp_attribution_init(void) {
  for (uint32_t i = 0; i < TP_MEMORY_CONTROLLERS; i++) {
    const tp_status status = protect(&controllers[i]);
    if (status != TP_OK) {
      return status;
    }
  }
  /* The core: what no region covers is secure. */
  for (uint32_t i = 0; i < RANGES; i++) {
    attribute(i, nonsecure[i].origin, nonsecure[i].length, 0);
  }
  attribute(RANGES, ENTRY_ORIGIN, ENTRY_LENGTH, SAU_CALLABLE);
  attribute(RANGES + 1u, 0x40000000u, 0x10000000u, 0); /* peripherals: each is as its controller says */
  SAU_CTRL = 1u;
  SPC_NSCCFG = 1u; /* the IDAU allows entry points in secure code */

  /* UART1 is the non-secure side's, everything else stays secure; a refused access is a bus error. */
  SPC_APBNSPPCEXP1 = UART1_PORT;
  SPC_SECRESPCFG = 1u;

  /* Bus and hard faults are taken by the secure side (BFHFNMINS clear), its exceptions come first (PRIS), and only it
   * may reset (SYSRESETREQS). */
  SCB_AIRCR = 0x05FA0000u | (1u << 14) | (1u << 3);
  SCB_SHCSR |= (1u << 19) | (1u << 18) | (1u << 17) | (1u << 16);

  /* The non-secure side may use the FPU. Its interrupts find no secure values there (TS, CLRONRET, CLRONRETS). */
  SCB_NSACR |= 3u << 10;
  FPU_FPCCR |= (1u << 28) | (1u << 27) | (1u << 26);
  __asm__ volatile("dsb\n isb" ::: "memory");
  return TP_OK;
}

void tp_attribution_count(uint32_t index, uint32_t *blocks, uint32_t *open) {
  const controller *c = &controllers[index];
  *blocks = c->length / block_bytes(c);
  *open = 0;
  for (uint32_t block = 0; block < *blocks; block++) {
    MPC_BLK_IDX(c->base) = block / 32u;
    *open += MPC_BLK_LUT(c->base) >> (block % 32u) & 1u;
  }
}
