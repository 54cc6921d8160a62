/* Numbers and bytes as text, through the console driver. */
#include "text.h"

#include "tinypeft/tp_console.h"

static void digit(uint32_t value) { tp_console_write((uint8_t)"0123456789abcdef"[value & 15u]); }

void tp_text(const char *text) {
  while (*text != '\0') {
    tp_console_write((uint8_t)*text++);
  }
}

void tp_text_number(uint32_t number) {
  uint32_t unit = 1;
  while (number / unit >= 10u) {
    unit *= 10u;
  }
  for (; unit != 0; unit /= 10u) {
    digit(number / unit % 10u);
  }
}

void tp_text_word(uint32_t word) {
  tp_text("0x");
  for (uint32_t shift = 32; shift != 0; shift -= 4) {
    digit(word >> (shift - 4u));
  }
}

void tp_text_bytes(const uint8_t *bytes, uint32_t length) {
  for (uint32_t i = 0; i < length; i++) {
    digit((uint32_t)bytes[i] >> 4);
    digit(bytes[i]);
  }
}

void tp_text_end(void) { tp_text("\r\n"); }
