/* What happens when someone reaches for what is not his. */
#ifndef FAULT_H
#define FAULT_H

/* Handler of every fault: says on the secure console what it was and resets the machine. A fault of the secure side
 * itself is no attack but a defect, and ends in a loop. */
void tp_fault(void) __attribute__((naked));

#endif
