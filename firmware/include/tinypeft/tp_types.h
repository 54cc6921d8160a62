/* Status codes, block floating point and tracing: what every other header builds on. */
#ifndef TP_TYPES_H
#define TP_TYPES_H

#include <stddef.h>
#include <stdint.h>

/* name, value, text. The one table of errors: codes and texts cannot drift apart. */
#define TP_STATUS_TABLE(X)                                               \
  X(TP_OK, 0, "ok")                                                      \
  X(TP_ERR_ARGUMENT, -1, "an argument is out of range")                  \
  X(TP_ERR_SIZE, -2, "a buffer or package has the wrong size")           \
  X(TP_ERR_CHECKSUM, -3, "a checksum does not match")                    \
  X(TP_ERR_FORMAT, -4, "not an adapter package of this format version")  \
  X(TP_ERR_FINGERPRINT, -5, "the adapter belongs to another base model") \
  X(TP_ERR_COMMAND, -6, "unknown command or object")                     \
  X(TP_ERR_UNSUPPORTED, -7, "this firmware was built without that")      \
  X(TP_ERR_LAYOUT, -8, "the adapter has other layers or another kind")   \
  X(TP_ERR_RANK, -9, "the adapter's rank is above this firmware's")      \
  X(TP_ERR_HASH, -10, "the SHA-256 of the package does not match")       \
  X(TP_ERR_SIGNATURE, -11, "the signature is missing or wrong")          \
  X(TP_ERR_ROLLBACK, -12, "its security counter is older than allowed")  \
  X(TP_ERR_TRUNCATED, -13, "the package is incomplete")                  \
  X(TP_ERR_TOO_LARGE, -14, "the package is larger than a slot")          \
  X(TP_ERR_FULL, -15, "no free slot, or no room for another adapter")    \
  X(TP_ERR_FLASH, -16, "the flash memory reports a fault")               \
  X(TP_ERR_NOT_FOUND, -17, "no such adapter")                            \
  X(TP_ERR_STATE, -18, "nothing is there that this could act on")        \
  X(TP_ERR_ID, -19, "not an adapter id: a-z 0-9 . _ -, at most 15")      \
  X(TP_ERR_DELTA, -20, "the delta was made for another package")         \
  X(TP_ERR_GEOMETRY, -21, "the flash memory holds a store of another geometry") \
  X(TP_ERR_IDENTITY, -22, "the package is another adapter's")

/* In firmware, the linker's section for a definition; on a host it lies where everything does. */
#ifdef __arm__
#define TP_SECTION(name) __attribute__((section(name)))
#else
#define TP_SECTION(name)
#endif

/* Thumb-1 reaches eight registers and multiplies to 32 bits only: what needs more of either is done otherwise. */
#if defined(__thumb__) && !defined(__thumb2__)
#define TP_THUMB1 1
#else
#define TP_THUMB1 0
#endif

/* A loop in a function of its own has the registers to itself. */
#ifdef __GNUC__
#define TP_NOINLINE __attribute__((noinline))
#else
#define TP_NOINLINE
#endif

/* A part of a loop that is compiled for what is constant in it. */
#ifdef __GNUC__
#define TP_ALWAYS_INLINE static inline __attribute__((always_inline))
#else
#define TP_ALWAYS_INLINE static inline
#endif

/* A function that hardly ever runs: small instead of fast, as is what leads to its calls. */
#ifdef __GNUC__
#define TP_COLD __attribute__((noinline, cold))
#else
#define TP_COLD
#endif

/* A definition that one elsewhere takes the place of. */
#ifdef __GNUC__
#define TP_WEAK __attribute__((weak))
#else
#define TP_WEAK
#endif

#define TP_STATUS_ENUM(name, value, text) name = (value),
typedef enum { TP_STATUS_TABLE(TP_STATUS_ENUM) TP_STATUS_END = 1 } tp_status;

/* The text of a status; "unknown status" for any other value. */
const char *tp_status_text(tp_status status);

/* Bits of a gradient's mantissa, 16 or 8: one number for all sources of a build. */
#ifndef TP_GRADIENT_BITS
#define TP_GRADIENT_BITS 16
#endif
#if TP_GRADIENT_BITS == 16
typedef int16_t tp_mantissa;
#define TP_BFP_MAX 32767
#elif TP_GRADIENT_BITS == 8
typedef int8_t tp_mantissa;
#define TP_BFP_MAX 127
#else
#error "TP_GRADIENT_BITS must be 16 or 8"
#endif

/* Block floating point: value[i] = mantissa[i] * 2^exponent. `peak` is the largest |mantissa|, 0 to TP_BFP_MAX,
 * kept by every kernel that writes the mantissas, so that the next one can bound its result beforehand. */
typedef struct {
  tp_mantissa *mantissa;
  int32_t exponent;
  int32_t peak;
} tp_bfp;

/* A constant real number as Q16.16, the form of target vectors; within +-32767. */
#define TP_Q16(x) ((int32_t)((x) * 65536.0 + ((x) < 0 ? -0.5 : 0.5)))

/* Called after every operation with each of its outputs; `exponent` is 0 but for tp_bfp values.
 * `index` counts the outputs over the whole graph, from 0. */
typedef void (*tp_trace_function)(void *context, uint32_t index, const void *data, uint32_t bytes, int32_t exponent);

#endif
