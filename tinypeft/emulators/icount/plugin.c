/* QEMU plugin: counts the instructions executed between two markers, see tp_count.h. After each region it appends the
 * count as a line to a file. Argument: out=FILE. A machine of one core. */
#include "markers.h"
#include "qemu_plugin_abi.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

EXPORT extern int qemu_plugin_version;
EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv);

int qemu_plugin_version = QEMU_PLUGIN_ABI_VERSION;

static uint64_t executed; /* the markers themselves are not counted */
static uint64_t executed_at_begin;
static int inside;
static FILE *counts;

static void begin_region(unsigned int cpu, void *data) {
  (void)cpu;
  (void)data;
  executed_at_begin = executed;
  inside = 1;
}

static void end_region(unsigned int cpu, void *data) {
  (void)cpu;
  (void)data;
  if (inside) {
    fprintf(counts, "%" PRIu64 "\n", executed - executed_at_begin);
    fflush(counts); /* before the device can answer, hence before anyone reads the file */
    inside = 0;
  }
}

static void translate(qemu_plugin_id_t id, struct qemu_plugin_tb *block) {
  (void)id;
  const size_t length = qemu_plugin_tb_n_insns(block);
  for (size_t i = 0; i < length; i++) {
    struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(block, i);
    if (is_marker(instruction, begin_markers)) {
      qemu_plugin_register_vcpu_insn_exec_cb(instruction, begin_region, QEMU_PLUGIN_CB_NO_REGS, NULL);
    } else if (is_marker(instruction, end_markers)) {
      qemu_plugin_register_vcpu_insn_exec_cb(instruction, end_region, QEMU_PLUGIN_CB_NO_REGS, NULL);
    } else {
      qemu_plugin_register_vcpu_insn_exec_inline(instruction, QEMU_PLUGIN_INLINE_ADD_U64, &executed, 1);
    }
  }
}

int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv) {
  (void)info;
  for (int i = 0; i < argc; i++) {
    if (strncmp(argv[i], "out=", 4) == 0 && counts == NULL) {
      counts = fopen(argv[i] + 4, "w");
    }
  }
  if (counts == NULL) {
    fprintf(stderr, "icount: out=FILE is missing or cannot be written\n");
    return -1;
  }
  qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
  return 0;
}
