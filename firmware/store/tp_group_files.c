/* MCUmgr's file management: the packages of adapters as files. */
#include <string.h>

#include "tinypeft/tp_adapters.h"
#include "tinypeft/tp_crc.h"
#include "tinypeft/tp_group_adapters.h"
#include "tinypeft/tp_sha256.h"

/* FS_MGMT_ERR_* */
enum {
  FILES_INVALID_NAME = 2,
  FILES_NOT_FOUND = 3,
  FILES_WRITE_FAILED = 10,
  FILES_OFFSET_NOT_VALID = 11,
  FILES_OFFSET_TOO_LARGE = 12,
  FILES_HASH_NOT_FOUND = 13
};

static const char folder[] = "/adapter/";
#define FOLDER_LENGTH ((uint32_t)sizeof folder - 1u)
#define PIECE 64u

static uint16_t files_rc(tp_status status) {
  switch (status) {
    case TP_ERR_ID:
      return FILES_INVALID_NAME;
    case TP_ERR_NOT_FOUND:
      return FILES_NOT_FOUND;
    case TP_ERR_STATE:
      return FILES_OFFSET_NOT_VALID;
    case TP_ERR_ARGUMENT:
      return FILES_OFFSET_TOO_LARGE;
    case TP_ERR_UNSUPPORTED:
      return FILES_HASH_NOT_FOUND;
    default:
      return FILES_WRITE_FAILED;
  }
}

static tp_status name_of(const tp_request *request, char id[TP_ID_BYTES]) {
  const tp_span name = tp_request_span(request, TP_KEY_NAME);
  if (name.length <= FOLDER_LENGTH || memcmp(name.data, folder, FOLDER_LENGTH) != 0) {
    return TP_ERR_ID;
  }
  return tp_group_id((tp_span){name.data + FOLDER_LENGTH, name.length - FOLDER_LENGTH}, id);
}

/* The file that a request names. */
typedef struct {
  const tp_store *store;
  const tp_store_entry *entry;
  tp_store_part part;
  uint32_t bytes;
} file;

static tp_status find(const tp_server *server, const tp_request *request, file *found) {
  char id[TP_ID_BYTES];
  const tp_status status = name_of(request, id);
  if (status != TP_OK) {
    return status;
  }
  found->store = server->adapters->store;
  found->entry = tp_store_find(found->store, id);
  found->part = tp_group_newest(found->entry);
  if (found->entry == NULL || found->entry->slot[found->part] == TP_STORE_NO_SLOT) {
    return TP_ERR_NOT_FOUND;
  }
  found->bytes = found->entry->bytes[found->part];
  return TP_OK;
}

static tp_status read_file(const file *from, uint32_t offset, void *data, uint32_t length) {
  return tp_store_read(from->store, from->entry, from->part, offset, data, length);
}

static int command_upload(tp_server *server, const tp_request *request) {
  char id[TP_ID_BYTES];
  const tp_status status = name_of(request, id);
  return status == TP_OK ? tp_group_receive(server, id, request) : status;
}

static int command_download(tp_server *server, const tp_request *request) {
  tp_response *response = &server->response;
  const uint32_t off = tp_request_u32(request, TP_KEY_OFF, 0);
  uint8_t piece[PIECE];
  file found;
  tp_status status = find(server, request, &found);
  if (status == TP_OK && off > found.bytes) {
    status = TP_ERR_ARGUMENT;
  }
  if (status != TP_OK) {
    return status;
  }
  tp_response_u32(response, "off", off);
  if (off == 0) {
    tp_response_u32(response, "len", found.bytes);
  }
  tp_response_begin_string(response, "data", TP_CBOR_BYTES);
  for (uint32_t at = off; at < found.bytes && status == TP_OK;) {
    uint32_t length = tp_response_string_room(response);
    length = length < PIECE ? length : PIECE;
    length = length < found.bytes - at ? length : found.bytes - at;
    if (length == 0) {
      break;
    }
    status = read_file(&found, at, piece, length);
    tp_response_fill(response, piece, length);
    at += length;
  }
  tp_response_end_string(response);
  return status;
}

static int command_status(tp_server *server, const tp_request *request) {
  file found;
  const tp_status status = find(server, request, &found);
  if (status == TP_OK) {
    tp_response_u32(&server->response, "len", found.bytes);
  }
  return status;
}

/* What a file's content may be hashed with, the default first. */
static const struct {
  char name[8];
  uint8_t bytes; /* whether the output is some, or a number */
  uint8_t size;
} types[] = {{"sha256", 1, TP_DIGEST_BYTES}, {"crc32", 0, 4}};
enum { SHA256, CRC32, TYPES };

static uint32_t find_type(tp_span name) {
  uint32_t type = 0;
  while (type < TYPES && (name.length != strlen(types[type].name) ||
                          memcmp(name.data, types[type].name, name.length) != 0)) {
    type++;
  }
  return name.length == 0 ? SHA256 : type;
}

static int command_hash(tp_server *server, const tp_request *request) {
  tp_response *response = &server->response;
  const uint32_t type = find_type(tp_request_span(request, TP_KEY_TYPE));
  const uint32_t off = tp_request_u32(request, TP_KEY_OFF, 0);
  uint8_t piece[PIECE], digest[TP_DIGEST_BYTES];
  tp_sha256 hash;
  uint32_t crc = 0;
  file found;
  tp_status status = find(server, request, &found);
  if (status == TP_OK && type == TYPES) {
    status = TP_ERR_UNSUPPORTED;
  }
  if (status == TP_OK && off > found.bytes) {
    status = TP_ERR_ARGUMENT;
  }
  if (status != TP_OK) {
    return status;
  }
  uint32_t length = tp_request_u32(request, TP_KEY_LEN, UINT32_MAX);
  length = length < found.bytes - off ? length : found.bytes - off;
  tp_sha256_begin(&hash);
  for (uint32_t done = 0; done < length && status == TP_OK; done += PIECE) {
    const uint32_t part = length - done < PIECE ? length - done : PIECE;
    status = read_file(&found, off + done, piece, part);
    tp_sha256_update(&hash, piece, part);
    crc = tp_crc32(crc, piece, part);
  }
  tp_response_text(response, "type", types[type].name, (uint32_t)strlen(types[type].name));
  if (off > 0) {
    tp_response_u32(response, "off", off);
  }
  tp_response_u32(response, "len", length);
  if (type == CRC32) {
    tp_response_u32(response, "output", crc);
  } else {
    tp_sha256_finish(&hash, digest);
    tp_response_bytes(response, "output", digest, sizeof digest);
  }
  return status;
}

static int command_types(tp_server *server, const tp_request *request) {
  (void)request;
  tp_response *response = &server->response;
  tp_response_begin_map(response, "types");
  for (uint32_t type = 0; type < TYPES; type++) {
    tp_response_begin_map(response, types[type].name);
    tp_response_u32(response, "format", types[type].bytes);
    tp_response_u32(response, "size", types[type].size);
    tp_response_end(response);
  }
  tp_response_end(response);
  return TP_OK;
}

static int command_close(tp_server *server, const tp_request *request) {
  (void)request;
  tp_adapters_upload_abort(server->adapters);
  return TP_OK;
}

static const tp_handler handlers[] = {
    {command_upload, TP_HAS(NAME) | TP_HAS(OFF) | TP_HAS(DATA), TP_OP_WRITE, 0},
    {command_download, TP_HAS(NAME) | TP_HAS(OFF), TP_OP_READ, 0},
    {command_status, TP_HAS(NAME), TP_OP_READ, 1},
    {command_hash, TP_HAS(NAME), TP_OP_READ, 2},
    {command_types, 0, TP_OP_READ, 3},
    {command_close, 0, TP_OP_WRITE, 4},
};

const tp_group tp_group_files = {
    .group = TP_GROUP_FILES,
    .count = sizeof handlers / sizeof handlers[0],
    .needs_model = 1,
    .needs_store = 1,
    .handlers = handlers,
    .rc = files_rc,
};
