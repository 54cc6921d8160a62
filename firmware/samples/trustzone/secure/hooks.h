/* The platform's part of tinypeft/tp_security.h on this machine. Non-secure code can call none of it: no hook has a
 * veneer. */
#ifndef HOOKS_H
#define HOOKS_H

#include "tinypeft/tp_security.h"

/* entropy            NOT unpredictable: QEMU's machine has no source of entropy. A keyed sequence that differs with
 *                    every reset but begins again when power returns; a product reads its TRNG here.
 * monotonic_counter  in retained secure memory: survives a reset, not a loss of power
 * key_derive         HMAC-SHA-256 of a counter and the purpose under the device secret that the build put into the
 *                    image (SP 800-108 in counter mode, without its length field): a product's secret is one of the
 *                    chip's own, which no image holds
 * verify_sig         NULL: what checks signatures is no matter of the platform here */
extern const tp_security tp_hooks;

#endif
