/* What malicious non-secure code might try. */
#ifndef ATTACKS_H
#define ATTACKS_H

#include <stdint.h>

/* Hand the entry point buffers that it must refuse; says what it answers to each. */
void tp_attack_pointers(void);

/* How many attempts there are at what must fault. */
uint32_t tp_attacks(void);

/* Make attempt `index`, from 0 on, and say what it gave, in case that it returns. */
void tp_attack(uint32_t index);

#endif
