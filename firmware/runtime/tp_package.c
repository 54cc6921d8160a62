#include "tinypeft/tp_package.h"

#include <string.h>

#include "tinypeft/tp_bytes.h"
#include "tinypeft/tp_crc.h"
#include "tinypeft/tp_sha256.h"

#define PIECE 64u
#define CRC_BYTES 4u

_Static_assert(offsetof(tp_package_header, package_bytes) == TP_PACKAGE_HEADER_BYTES &&
                   offsetof(tp_package_header, layout) == 44u && offsetof(tp_package_header, reserved) == 78u,
               "tp_package_header is not laid out as a package is");

static const uint8_t magic[4] = {'T', 'P', 'A', 'D'};

static uint32_t smaller(uint32_t a, uint32_t b) { return a < b ? a : b; }

tp_status tp_package_parse(const uint8_t bytes[TP_PACKAGE_HEADER_BYTES], tp_package_header *header) {
  memcpy(header, bytes, TP_PACKAGE_HEADER_BYTES);
  const uint32_t around = TP_PACKAGE_OVERHEAD_BYTES + (header->flags != 0 ? TP_SIGNATURE_BYTES : 0u);
  if (memcmp(header->magic, magic, sizeof magic) != 0 || header->format != TP_PACKAGE_FORMAT ||
      header->header_bytes != TP_PACKAGE_HEADER_BYTES || (header->flags & ~TP_PACKAGE_SIGNED) != 0 ||
      header->reserved != 0 || header->payload_bytes > UINT32_MAX - around) {
    return TP_ERR_FORMAT;
  }
  header->package_bytes = header->payload_bytes + around;
  return tp_id_valid(header->identity.id) ? TP_OK : TP_ERR_ID;
}

/* How many ranks a package of `rank` has of a tensor. */
static uint32_t ranks_of(const tp_package_tensor *tensor, uint32_t rank) {
  return tensor->ranked && !tensor->fixed ? smaller(tensor->rank, rank) : tensor->rank;
}

tp_status tp_package_fits(const tp_package_info *info, const tp_package_header *header) {
  if (memcmp(header->fingerprint, info->fingerprint, sizeof header->fingerprint) != 0) {
    return TP_ERR_FINGERPRINT;
  }
  if (header->layout != info->layout || header->method != info->method) {
    return TP_ERR_LAYOUT;
  }
  if (header->rank > info->rank || (header->rank == 0) != (info->rank == 0)) {
    return TP_ERR_RANK;
  }
  uint32_t payload = 0;
  for (uint32_t i = 0; i < info->tensor_count; i++) {
    const tp_package_tensor *tensor = &info->tensors[i];
    if (tensor->fixed && tensor->rank > header->rank) {
      return TP_ERR_RANK;
    }
    payload += tensor->fixed ? tensor->inner : tensor->outer * ranks_of(tensor, header->rank) * tensor->inner;
  }
  return header->payload_bytes == payload ? TP_OK : TP_ERR_SIZE;
}

/* A package that is read from its beginning on, and the checksums of what has been. */
typedef struct {
  tp_package_reader read;
  void *context;
  uint32_t offset, crc;
  tp_sha256 *sha; /* NULL: is not asked for */
} stream;

/* Read the next bytes into `into`, or nowhere (NULL), and count them in. */
static tp_status take(stream *from, uint32_t length, uint8_t *into) {
  uint8_t piece[PIECE];
  while (length > 0) {
    const uint32_t part = smaller(length, PIECE);
    uint8_t *data = into != NULL ? into : piece;
    const tp_status status = from->read(from->context, from->offset, data, part);
    if (status != TP_OK) {
      return status;
    }
    from->crc = tp_crc32(from->crc, data, part);
    if (from->sha != NULL) {
      tp_sha256_update(from->sha, data, part);
    }
    into = into != NULL ? into + part : NULL;
    from->offset += part;
    length -= part;
  }
  return TP_OK;
}

/* Read the checksum, which comes next, and compare it. */
static tp_status compare_crc(stream *from) {
  const uint32_t expected = from->crc;
  uint8_t stored[CRC_BYTES];
  const tp_status status = take(from, CRC_BYTES, stored);
  if (status != TP_OK) {
    return status;
  }
  return tp_get_u32(stored) == expected ? TP_OK : TP_ERR_CHECKSUM;
}

/* Read the header, and whether a package of `bytes` can be used. */
static tp_status take_header(stream *from, const tp_package_info *info, uint32_t bytes, tp_package_header *header) {
  uint8_t head[TP_PACKAGE_HEADER_BYTES];
  if (bytes < TP_PACKAGE_HEADER_BYTES) {
    return TP_ERR_TRUNCATED;
  }
  tp_status status = take(from, sizeof head, head);
  if (status == TP_OK) {
    status = tp_package_parse(head, header);
  }
  if (status == TP_OK) {
    status = tp_package_fits(info, header);
  }
  if (status == TP_OK && bytes != header->package_bytes) {
    status = bytes < header->package_bytes ? TP_ERR_TRUNCATED : TP_ERR_SIZE;
  }
  return status;
}

tp_status tp_package_verify(const tp_package_info *info, tp_package_reader read, void *context, uint32_t bytes,
                            const tp_security *security, tp_package_header *header) {
  uint8_t digest[TP_DIGEST_BYTES];
  uint8_t stored[TP_SIGNATURE_BYTES];
  tp_sha256 sha;
  stream from = {.read = read, .context = context, .sha = &sha};
  tp_sha256_begin(&sha);
  tp_status status = take_header(&from, info, bytes, header);
  if (status == TP_OK) {
    status = take(&from, header->payload_bytes, NULL);
  }
  if (status == TP_OK) {
    status = compare_crc(&from);
  }
  if (status == TP_OK) {
    status = read(context, from.offset, stored, TP_DIGEST_BYTES);
  }
  if (status != TP_OK) {
    return status;
  }
  tp_sha256_finish(&sha, digest);
  if (memcmp(stored, digest, TP_DIGEST_BYTES) != 0) {
    return TP_ERR_HASH;
  }
  if (security == NULL || security->verify_sig == NULL) {
    return TP_OK;
  }
  if ((header->flags & TP_PACKAGE_SIGNED) == 0) {
    return TP_ERR_SIGNATURE;
  }
  status = read(context, from.offset + TP_DIGEST_BYTES, stored, TP_SIGNATURE_BYTES);
  return status != TP_OK ? status : security->verify_sig(security->context, digest, stored);
}

tp_status tp_package_load(const tp_package_info *info, tp_package_reader read, void *context,
                          const tp_package_header *header, void *adapter) {
  uint8_t *into = adapter;
  stream from = {.read = read, .context = context};
  tp_status status = take(&from, TP_PACKAGE_HEADER_BYTES, NULL);
  for (uint32_t i = 0; i < info->tensor_count && status == TP_OK; i++) {
    const tp_package_tensor *tensor = &info->tensors[i];
    const uint32_t rows = tensor->fixed ? 1u : tensor->outer;
    const uint32_t whole = tensor->fixed ? tensor->inner : tensor->rank * tensor->inner;
    const uint32_t given = tensor->fixed ? tensor->inner : ranks_of(tensor, header->rank) * tensor->inner;
    /* read to the tensor's end, so that each row moves towards its beginning */
    uint8_t *source = into + rows * (whole - given);
    status = take(&from, rows * given, source);
    if (given == whole) {
      into += rows * whole;
      continue;
    }
    for (uint32_t row = 0; row < rows; row++) {
      memmove(into, source, given);
      memset(into + given, 0, whole - given);
      into += whole;
      source += given;
    }
  }
  return status == TP_OK ? compare_crc(&from) : status;
}

tp_status tp_package_read_memory(void *context, uint32_t offset, void *data, uint32_t length) {
  memcpy(data, (const uint8_t *)context + offset, length);
  return TP_OK;
}

tp_status tp_package_write(const tp_package_info *info, const tp_package_identity *identity, const void *payload,
                           uint8_t *package, uint32_t capacity) {
  static const tp_package_identity unnamed = {.id = "adapter"};
  const tp_package_identity *who = identity != NULL ? identity : &unnamed;
  if (!tp_id_valid(who->id)) {
    return TP_ERR_ID;
  }
  if (capacity < TP_PACKAGE_OVERHEAD_BYTES || capacity - TP_PACKAGE_OVERHEAD_BYTES < info->payload_bytes) {
    return TP_ERR_SIZE;
  }
  tp_package_header header = {
      .format = TP_PACKAGE_FORMAT,
      .header_bytes = TP_PACKAGE_HEADER_BYTES,
      .payload_bytes = info->payload_bytes,
      .layout = info->layout,
      .identity = *who,
      .method = info->method,
      .rank = info->rank,
  };
  memcpy(header.magic, magic, sizeof magic);
  memcpy(header.fingerprint, info->fingerprint, sizeof header.fingerprint);
  memcpy(package, &header, TP_PACKAGE_HEADER_BYTES);
  memcpy(package + TP_PACKAGE_HEADER_BYTES, payload, info->payload_bytes);
  const uint32_t covered = TP_PACKAGE_HEADER_BYTES + info->payload_bytes;
  tp_put_u32(package + covered, tp_crc32(0, package, covered));
  tp_sha256 sha;
  tp_sha256_begin(&sha);
  tp_sha256_update(&sha, package, covered + CRC_BYTES);
  tp_sha256_finish(&sha, package + covered + CRC_BYTES);
  return TP_OK;
}
