/* Ed25519 signatures of packages (RFC 8032), with the arithmetic of Monocypher: only in projects that have a key. */
#ifndef TP_VERIFY_ED25519_H
#define TP_VERIFY_ED25519_H

#include "tp_security.h"

/* TP_OK where `signature` is that of `digest` by who has the private key of `public_key`, else TP_ERR_SIGNATURE. Takes
 * about 2 KB of stack. */
tp_status tp_verify_ed25519(const uint8_t public_key[32], const uint8_t digest[TP_DIGEST_BYTES],
                            const uint8_t signature[TP_SIGNATURE_BYTES]);

#endif
