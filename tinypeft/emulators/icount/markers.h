/* The instructions of tp_count.h between which is counted. */
#ifndef MARKERS_H
#define MARKERS_H

#include "qemu_plugin_abi.h"

#include <string.h>

typedef struct {
  uint8_t bytes[4];
  size_t size;
} marker;

static const marker begin_markers[2] = {
    {{0x4A, 0xEA, 0x0A, 0x0A}, 4}, /* orr.w r10, r10, r10 */
    {{0xD2, 0x46, 0, 0}, 2},       /* mov r10, r10 */
};
static const marker end_markers[2] = {
    {{0x4B, 0xEA, 0x0B, 0x0B}, 4}, /* orr.w r11, r11, r11 */
    {{0xDB, 0x46, 0, 0}, 2},       /* mov r11, r11 */
};

/* In front of an instruction that crosses a page, QEMU gives the first bytes of that too: those behind do not count. */
static inline int is_marker(const struct qemu_plugin_insn *instruction, const marker *markers) {
  for (int i = 0; i < 2; i++) {
    if (qemu_plugin_insn_size(instruction) >= markers[i].size &&
        memcmp(qemu_plugin_insn_data(instruction), markers[i].bytes, markers[i].size) == 0) {
      return 1;
    }
  }
  return 0;
}

#endif
