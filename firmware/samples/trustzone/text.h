/* Lines of text on the console of the side that this is compiled for. */
#ifndef TEXT_H
#define TEXT_H

#include <stdint.h>

void tp_text(const char *text);
void tp_text_number(uint32_t number);
/* 0x and eight digits. */
void tp_text_word(uint32_t word);
/* Two digits a byte. */
void tp_text_bytes(const uint8_t *bytes, uint32_t length);
/* The end of a line. */
void tp_text_end(void);

#endif
