/* All that non-secure code may call of the secure image, by the veneers of build/trustzone/secure_entry.o. */
#ifndef SECURE_API_H
#define SECURE_API_H

#include "tinypeft/tp_types.h"

#if defined(__ARM_FEATURE_CMSE) && __ARM_FEATURE_CMSE == 3
#define TP_SECURE_ENTRY __attribute__((cmse_nonsecure_entry))
#else
#define TP_SECURE_ENTRY
#endif

/* Infer: `input` and `output` are the model's _INPUT_BYTES and _OUTPUT_BYTES in non-secure memory. Both are copied: the
 * model never works in memory that the caller can change meanwhile.
 * Errors: TP_ERR_SIZE for other sizes; TP_ERR_ARGUMENT for a buffer that the caller may not read or write itself;
 * TP_ERR_STATE for a call out of an interrupt that came during another one. Nothing is written then. */
TP_SECURE_ENTRY tp_status tp_secure_infer(const void *input, uint32_t input_bytes, void *output,
                                          uint32_t output_bytes);

/* Give the secure side time for what it has to do, such as training; it decides what that is. */
TP_SECURE_ENTRY void tp_secure_idle(void);

/* The next stage of the demonstration: 0, 1, 2, ..., counted across resets. */
TP_SECURE_ENTRY uint32_t tp_secure_stage(void);

#endif
