/* Which memory of the AN505 image is whose. C sources and, through the preprocessor, both linker scripts read it: plain
 * numbers, no suffixes. Bit 28 of an address makes it the secure alias of the same memory. */
#ifndef MEMORY_MAP_H
#define MEMORY_MAP_H

/* SSRAM1, loaded before reset: the secure image in the lower half, its entry points at the half's end. */
#define SECURE_CODE_ORIGIN 0x10000000
#define SECURE_CODE_LENGTH 0x001F0000
#define ENTRY_ORIGIN 0x101F0000
#define ENTRY_LENGTH 0x00010000
#define NONSECURE_CODE_ORIGIN 0x00200000
#define NONSECURE_CODE_LENGTH 0x00200000

/* SSRAM2. Its first page is no section of the image: nothing clears it at a reset. The model's part holds arena,
 * adapter and training state. */
#define RETAINED_ORIGIN 0x38000000
#define RETAINED_LENGTH 0x00001000
#define SECURE_RAM_ORIGIN 0x38001000
#define SECURE_RAM_LENGTH 0x0001F000
#define MODEL_RAM_ORIGIN 0x38020000
#define MODEL_RAM_LENGTH 0x001E0000

/* SSRAM3. */
#define NONSECURE_RAM_ORIGIN 0x28200000
#define NONSECURE_RAM_LENGTH 0x00200000

#define SECURE_STACK_BYTES 0x2000
#define NONSECURE_STACK_BYTES 0x1000

#endif
