/* What the targets share: an input that is read piece by piece, what must hold, and packages and deltas as a host would
 * make them. */
#ifndef HARNESS_H
#define HARNESS_H

#include <stddef.h>

#include "tinypeft/tp_delta.h"
#include "tinypeft/tp_package.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* With this the targets build with a fault each, which they must find. */
#ifdef PLANTED
#define PLANTED_BYTES 1u
#else
#define PLANTED_BYTES 0u
#endif

typedef struct {
  const uint8_t *data;
  uint32_t left;
} fuzz_input;

/* The next number, little-endian; zeros behind the end. */
uint32_t take_u8(fuzz_input *input);
uint32_t take_u16(fuzz_input *input);
uint32_t take_u32(fuzz_input *input);
/* The next `*length` bytes, or as many as are left. */
const uint8_t *take_bytes(fuzz_input *input, uint32_t *length);

/* Of checks over many bytes: no branch of theirs says anything about the firmware, and telling of each takes long. */
#define NOT_TRACED __attribute__((no_sanitize("coverage")))

/* Stop the program, which is a finding. */
void require(int holds, const char *what);

/* `bytes` of memory between parts that may not be touched; `bytes` up to GUARDED_BYTES. */
#define GUARDED_BYTES 1024u
#define GUARD_BYTES 32u
typedef struct {
  _Alignas(8) uint8_t memory[GUARD_BYTES + GUARDED_BYTES + GUARD_BYTES];
} guarded;

uint8_t *guard(guarded *memory, uint32_t bytes);

/* A tp_package_reader that stops the program where it is asked for what is outside. */
typedef struct {
  const uint8_t *bytes;
  uint32_t length;
  uint32_t fails_at; /* from this offset on it gives TP_ERR_FLASH */
} strict_bytes;

tp_status read_strictly(void *context, uint32_t offset, void *data, uint32_t length);

/* A signature that anyone can make. */
tp_status verify_fake_signature(void *context, const uint8_t *digest, const uint8_t *signature);

/* Overwrite, as far as there is room, the last bytes of a package by those that match what is in front of them. */
#define SEAL_CRC 1u
#define SEAL_SHA 2u
#define SEAL_SIGNATURE 4u
#define SEAL_ALL 7u
void seal_package(uint8_t *package, uint32_t bytes, uint32_t what);

/* Whether all checksums of a package match: worked out apart from tp_package_verify(). */
int is_sealed(const uint8_t *package, uint32_t bytes, int with_signature);

/* Write the header of a package; its size. */
uint32_t put_package_header(uint8_t *package, const tp_package_info *info, const tp_package_identity *identity,
                            uint32_t rank, uint32_t flags);

/* Bytes of the payload at a rank. */
uint32_t payload_at(const tp_package_info *info, uint32_t rank);

/* Write the delta between two packages; its size, 0 where there is no room. */
uint32_t make_delta(const uint8_t *old, uint32_t old_bytes, const uint8_t *new, uint32_t new_bytes, uint8_t *delta,
                    uint32_t capacity);

/* Write the header of a delta. */
void put_delta_header(uint8_t *delta, const uint8_t *old, uint32_t old_bytes, uint32_t new_bytes);

#endif
