/* The firmware's server as a shared library on the host: the same sources, another byte stream. */
#ifndef TP_TWIN_H
#define TP_TWIN_H

#include <stddef.h>
#include <stdint.h>

#include "tinypeft/tp_types.h"

/* tp_twin_exchange(): the response did not fit. */
#define TP_TWIN_OVERFLOW SIZE_MAX

/* Initialise the device, as a reset would. Returns the status of tp_device_init(). */
tp_status tp_twin_init(void);

/* Feed `length` bytes to the server and collect all that it writes, up to `capacity` bytes, in `response`.
 * Returns the number of bytes, or TP_TWIN_OVERFLOW; the request has then been carried out all the same. */
size_t tp_twin_exchange(const uint8_t *request, size_t length, uint8_t *response, size_t capacity);

/* From now on keep what tp_board_flash() gives in the file at `path`, which is made where there is none; NULL: in
 * memory, all erased. Before tp_twin_init(), which leaves the storage as it is: a restart of the device. Only in a
 * project with a storage. TP_ERR_SIZE: the file has another size; TP_ERR_FLASH: it cannot be opened, read or written. */
tp_status tp_twin_storage(const char *path);

#endif
