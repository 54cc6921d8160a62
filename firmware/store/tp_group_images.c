/* MCUmgr's image management: adapter number n as image n, what is confirmed in slot 0, the candidate in slot 1. */
#include <string.h>

#include "tinypeft/tp_adapters.h"
#include "tinypeft/tp_group_adapters.h"

/* IMG_MGMT_ERR_* */
enum { IMAGES_UNKNOWN = 1, IMAGES_NO_IMAGE = 3, IMAGES_HASH_NOT_FOUND = 8, IMAGES_WRITE_FAILED = 12 };

#define SLOTS 2u /* of an image: confirmed, candidate */
#define IMAGE_ROOM 110u /* what an image takes at most */

static uint16_t images_rc(tp_status status) {
  switch (status) {
    case TP_ERR_NOT_FOUND:
      return IMAGES_HASH_NOT_FOUND;
    case TP_ERR_STATE:
      return IMAGES_NO_IMAGE;
    case TP_ERR_FLASH:
      return IMAGES_WRITE_FAILED;
    default:
      return IMAGES_UNKNOWN;
  }
}

/* `value` in decimal, followed by ".0.0" as versions of images have it. */
static uint32_t version_text(char text[16], uint32_t value) {
  char digits[10];
  uint32_t count = 0, used = 0;
  do {
    digits[count++] = (char)('0' + value % 10u);
    value /= 10u;
  } while (value > 0);
  while (count > 0) {
    text[used++] = digits[--count];
  }
  memcpy(text + used, ".0.0", 4);
  return used + 4u;
}

/* An image. */
typedef struct {
  const tp_store_entry *entry;
  tp_store_part part;
  tp_adapters_package package;
} image;

/* The image at `place`, which is that of its adapter times the slots and its slot; TP_ERR_NOT_FOUND where none is. */
static tp_status find_image(const tp_adapters *adapters, uint32_t place, image *found) {
  found->entry = tp_store_entry_at(adapters->store, place / SLOTS);
  found->part = (tp_store_part)(place % SLOTS);
  return tp_adapters_describe(adapters, found->entry, found->part, &found->package);
}

static int command_read(tp_server *server, const tp_request *request) {
  (void)request;
  tp_response *response = &server->response;
  const tp_store *store = server->adapters->store;
  const uint32_t places = tp_store_count(store) * SLOTS;
  tp_response_begin_list(response, "images");
  for (uint32_t place = 0; place < places && tp_response_room(response, "") >= IMAGE_ROOM; place++) {
    char text[16];
    image found;
    const tp_status status = find_image(server->adapters, place, &found);
    if (status == TP_ERR_NOT_FOUND) {
      continue;
    }
    if (status != TP_OK) {
      return status;
    }
    const int active = found.entry == tp_store_active(store) && found.part == tp_store_serving(found.entry);
    tp_response_begin_map(response, NULL);
    tp_response_u32(response, "image", place / SLOTS);
    tp_response_u32(response, "slot", found.part);
    tp_response_text(response, "version", text, version_text(text, found.entry->version[found.part]));
    tp_response_bytes(response, "hash", found.package.digest, sizeof found.package.digest);
    tp_response_bool(response, "bootable", 1);
    tp_response_bool(response, "confirmed", found.part == TP_STORE_CONFIRMED);
    tp_response_bool(response, "active", active);
    tp_response_end(response);
  }
  tp_response_end(response);
  return TP_OK;
}

/* The image with this digest; 0: there is none. */
static int find_hash(const tp_adapters *adapters, tp_span hash, image *found) {
  const uint32_t places = hash.length == TP_DIGEST_BYTES ? tp_store_count(adapters->store) * SLOTS : 0;
  for (uint32_t place = 0; place < places; place++) {
    if (find_image(adapters, place, found) == TP_OK &&
        memcmp(found->package.digest, hash.data, TP_DIGEST_BYTES) == 0) {
      return 1;
    }
  }
  return 0;
}

static int command_write(tp_server *server, const tp_request *request) {
  tp_adapters *adapters = server->adapters;
  const tp_span hash = tp_request_span(request, TP_KEY_HASH);
  const int confirm = tp_request_bool(request, TP_KEY_CONFIRM);
  image found = {.part = TP_STORE_CANDIDATE};
  if (hash.data != NULL) {
    if (!find_hash(adapters, hash, &found)) {
      return TP_ERR_NOT_FOUND;
    }
  } else if (confirm) {
    found.entry = tp_store_active(adapters->store);
  }
  if (found.entry == NULL) {
    return TP_ERR_NOT_FOUND;
  }
  char id[TP_ID_BYTES]; /* entries may move */
  memcpy(id, found.entry->id, sizeof id);
  const int on_test = found.entry->on_test != 0;
  tp_status status = TP_OK;
  if (!confirm || (found.part == TP_STORE_CANDIDATE && !on_test && hash.data != NULL)) {
    status = tp_adapters_activate(adapters, id);
  }
  if (status == TP_OK && confirm && found.part == TP_STORE_CANDIDATE && (on_test || hash.data != NULL)) {
    status = tp_adapters_confirm(adapters, id);
  }
  return status == TP_OK ? command_read(server, request) : status;
}

static const tp_handler handlers[] = {
    {command_read, 0, TP_OP_READ, 0},
    {command_write, 0, TP_OP_WRITE, 0},
};

const tp_group tp_group_images = {
    .group = TP_GROUP_IMAGES,
    .count = sizeof handlers / sizeof handlers[0],
    .needs_model = 1,
    .needs_store = 1,
    .handlers = handlers,
    .rc = images_rc,
};
