/* The part of QEMU's TCG plugin interface, version 1 (QEMU 4.2 to 8.2), that the plugins here use. QEMU offers its
 * functions to the plugins it loads; distributions ship no header for them. */
#ifndef QEMU_PLUGIN_ABI_H
#define QEMU_PLUGIN_ABI_H

#include <stddef.h>
#include <stdint.h>

#define QEMU_PLUGIN_ABI_VERSION 1

typedef uint64_t qemu_plugin_id_t;
typedef uint32_t qemu_plugin_meminfo_t; /* of an access: its size and kind, packed */
typedef struct qemu_info_t qemu_info_t;

struct qemu_plugin_tb;   /* a block of instructions being translated */
struct qemu_plugin_insn; /* one of them */

enum { QEMU_PLUGIN_CB_NO_REGS = 0 };     /* a callback that reads no registers */
enum { QEMU_PLUGIN_INLINE_ADD_U64 = 0 }; /* *pointer += value */
enum { QEMU_PLUGIN_MEM_RW = 3 };         /* loads and stores */

typedef void (*qemu_plugin_tb_callback)(qemu_plugin_id_t id, struct qemu_plugin_tb *block);
typedef void (*qemu_plugin_cpu_callback)(unsigned int cpu, void *data);
typedef void (*qemu_plugin_mem_callback)(unsigned int cpu, qemu_plugin_meminfo_t access, uint64_t address, void *data);

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, qemu_plugin_tb_callback callback);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *block, qemu_plugin_cpu_callback callback, int flags,
                                          void *data);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *instruction, qemu_plugin_cpu_callback callback,
                                            int flags, void *data);
void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *instruction, int operation, void *pointer,
                                                uint64_t value);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *instruction, qemu_plugin_mem_callback callback,
                                      int flags, int accesses, void *data);

size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *block, size_t index);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *instruction);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *instruction);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *instruction);
unsigned int qemu_plugin_mem_size_shift(qemu_plugin_meminfo_t access);

#endif
