/* QEMU plugin: how often each instruction is executed between two markers (see tp_count.h), call by call.
 *
 *   out=FILE         where it writes what it finds
 *   glue=START-END   addresses of generated code, hexadecimal, END behind the last; may be given several times
 *   unaligned=on     looks at the address of every access
 *
 * What runs between two markers is divided where the processor comes back into the glue, from a function that it had
 * called: a segment is a call with what prepares it. A line "segment ENTRY" gives the address to which the glue was
 * left, 0 where it was not; below it, for each instruction: its address, how often it was executed, how often it was a
 * branch that was taken, how many of its accesses were unaligned. A line "end" follows the last segment. A machine of
 * one core. */
#include "markers.h"
#include "qemu_plugin_abi.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#define MAX_GLUE 256
#define PAGE_BITS 12
#define PAGE_INSTRUCTIONS (1u << (PAGE_BITS - 1)) /* each has an even address */

EXPORT extern int qemu_plugin_version;
EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv);

int qemu_plugin_version = QEMU_PLUGIN_ABI_VERSION;

typedef struct {
  uint64_t executed;
  uint64_t taken;
  uint64_t unaligned;
  uint32_t address;
  int known;
} instruction;

typedef struct {
  uint32_t start;
  uint32_t end; /* behind its last instruction */
  instruction *last;
  int in_glue;
} block;

static instruction *pages[1u << (32 - PAGE_BITS)];
static instruction **known; /* all that were translated */
static size_t known_count, known_room;
static struct {
  uint32_t start, end;
} glue[MAX_GLUE];
static int glue_count;
static int watches_accesses;
static FILE *out;

static int inside;          /* between the markers */
static int in_glue;         /* whether the block before was */
static uint32_t entry;      /* of the segment */
static const block *before; /* executed last */

static void fail(const char *why) {
  fprintf(stderr, "profile: %s\n", why);
  exit(1);
}

static instruction *instruction_at(uint32_t address) {
  instruction **const page = &pages[address >> PAGE_BITS];
  if (*page == NULL && (*page = calloc(PAGE_INSTRUCTIONS, sizeof **page)) == NULL) {
    fail("out of memory");
  }
  instruction *const found = &(*page)[(address >> 1) % PAGE_INSTRUCTIONS];
  if (!found->known) {
    if (known_count == known_room) {
      known_room = known_room ? 2 * known_room : 4096;
      if ((known = realloc(known, known_room * sizeof *known)) == NULL) {
        fail("out of memory");
      }
    }
    known[known_count++] = found;
    found->address = address;
    found->known = 1;
  }
  return found;
}

static void clear_counts(void) {
  for (size_t i = 0; i < known_count; i++) {
    known[i]->executed = known[i]->taken = known[i]->unaligned = 0;
  }
}

static void end_segment(void) {
  fprintf(out, "segment %" PRIx32 "\n", entry);
  for (size_t i = 0; i < known_count; i++) {
    const instruction *const each = known[i];
    if (each->executed || each->taken || each->unaligned) {
      fprintf(out, "%" PRIx32 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", each->address, each->executed, each->taken,
              each->unaligned);
    }
  }
  clear_counts();
  entry = 0;
}

static void begin_region(unsigned int cpu, void *data) {
  (void)cpu;
  (void)data;
  clear_counts();
  entry = 0;
  in_glue = 0;
  inside = 1;
}

static void end_region(unsigned int cpu, void *data) {
  (void)cpu;
  (void)data;
  if (inside) {
    end_segment();
    fputs("end\n", out);
    fflush(out); /* before the device can answer, hence before anyone reads the file */
    inside = 0;
  }
}

/* QEMU ends a block at every branch: one that another follows than the next was left by a branch that was taken. One to
 * the next instruction looks as if it was not. */
static void enter_block(unsigned int cpu, void *data) {
  (void)cpu;
  const block *const now = data;
  if (before != NULL && before->end != now->start) {
    before->last->taken++;
  }
  before = now;
  if (inside && now->in_glue != in_glue) {
    if (now->in_glue) {
      end_segment();
    } else {
      entry = now->start;
    }
    in_glue = now->in_glue;
  }
}

static void watch_access(unsigned int cpu, qemu_plugin_meminfo_t access, uint64_t address, void *data) {
  (void)cpu;
  const unsigned int shift = qemu_plugin_mem_size_shift(access);
  const uint64_t mask = (1u << (shift < 2 ? shift : 2)) - 1; /* words are the widest that are aligned */
  if (address & mask) {
    ((instruction *)data)->unaligned++;
  }
}

static int is_glue(uint32_t address) {
  for (int i = 0; i < glue_count; i++) {
    if (glue[i].start <= address && address < glue[i].end) {
      return 1;
    }
  }
  return 0;
}

static void translate(qemu_plugin_id_t id, struct qemu_plugin_tb *translated) {
  (void)id;
  const size_t length = qemu_plugin_tb_n_insns(translated);
  if (length == 0) {
    return;
  }
  block *const made = calloc(1, sizeof *made); /* for as long as QEMU may execute it */
  if (made == NULL) {
    fail("out of memory");
  }
  made->start = (uint32_t)qemu_plugin_insn_vaddr(qemu_plugin_tb_get_insn(translated, 0));
  made->in_glue = is_glue(made->start);
  qemu_plugin_register_vcpu_tb_exec_cb(translated, enter_block, QEMU_PLUGIN_CB_NO_REGS, made);
  for (size_t i = 0; i < length; i++) {
    struct qemu_plugin_insn *const each = qemu_plugin_tb_get_insn(translated, i);
    const uint32_t address = (uint32_t)qemu_plugin_insn_vaddr(each);
    instruction *const counts = instruction_at(address);
    made->last = counts;
    made->end = address + (uint32_t)qemu_plugin_insn_size(each);
    if (is_marker(each, begin_markers)) {
      qemu_plugin_register_vcpu_insn_exec_cb(each, begin_region, QEMU_PLUGIN_CB_NO_REGS, NULL);
      continue;
    }
    if (is_marker(each, end_markers)) {
      qemu_plugin_register_vcpu_insn_exec_cb(each, end_region, QEMU_PLUGIN_CB_NO_REGS, NULL);
      continue;
    }
    qemu_plugin_register_vcpu_insn_exec_inline(each, QEMU_PLUGIN_INLINE_ADD_U64, &counts->executed, 1);
    if (watches_accesses) {
      qemu_plugin_register_vcpu_mem_cb(each, watch_access, QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_MEM_RW, counts);
    }
  }
}

static int add_glue(const char *text) {
  char *rest;
  if (glue_count == MAX_GLUE) {
    return 0;
  }
  glue[glue_count].start = (uint32_t)strtoul(text, &rest, 16);
  if (*rest != '-') {
    return 0;
  }
  glue[glue_count].end = (uint32_t)strtoul(rest + 1, &rest, 16);
  return *rest == '\0' && glue[glue_count].start < glue[glue_count].end && ++glue_count;
}

int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv) {
  (void)info;
  for (int i = 0; i < argc; i++) {
    if (strncmp(argv[i], "out=", 4) == 0 && out == NULL) {
      out = fopen(argv[i] + 4, "w");
    } else if (strcmp(argv[i], "unaligned=on") == 0) {
      watches_accesses = 1;
    } else if (strncmp(argv[i], "glue=", 5) != 0 || !add_glue(argv[i] + 5)) {
      fprintf(stderr, "profile: cannot use %s\n", argv[i]);
      return -1;
    }
  }
  if (out == NULL) {
    fprintf(stderr, "profile: out=FILE is missing or cannot be written\n");
    return -1;
  }
  qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
  return 0;
}
