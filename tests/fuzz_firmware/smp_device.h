/* The device that smp.c sends to: a server with every group, the tests' fake model, a store in memory. */
#ifndef SMP_DEVICE_H
#define SMP_DEVICE_H

#include "harness.h"
#include "tinypeft/tp_adapters.h"
#include "tinypeft/tp_flash_memory.h"
#include "tinypeft/tp_server.h"

#define SLOT_BYTES 208u
/* How the store may begin: empty; with an adapter; with candidates on test; with a checkpoint, too. */
#define STARTS 4u

typedef struct {
  tp_server server;
  tp_adapters adapters;
  tp_store store;
  tp_flash_memory memory;
  tp_model model;
  tp_security security;
  uint32_t counter; /* the platform's */
  uint32_t saved;   /* packages that the device made for its store */
  uint32_t fault_in; /* the operation of the flash from now on that fails; 0: none */
  tp_status (*prog)(void *context, uint32_t offset, const void *data, uint32_t length);
  tp_status (*erase)(void *context, uint32_t sector);
  int with_store;
  tp_frame_receiver line; /* what the server sends */
  uint32_t answers;
  uint8_t last[TP_MESSAGE_MAX];
  uint32_t last_bytes;
} smp_device;

extern smp_device device;

/* Power on, with what the flash holds. */
void start(void);

/* Put back the flash that begins as `number`, forget all else and start: with a store or without, with the platform's
 * security or without. */
void begin_with(uint32_t number, int with_store, int with_key);

/* A package for the device, sealed and, by its flags, signed; its size. */
uint32_t make_package(uint8_t *package, const char *id, uint32_t version, uint32_t counter, uint32_t rank,
                      uint32_t flags, uint32_t fill);

/* Stop the program where the store lists what is not whole and authentic, or memory holds anything else. */
void check_device(void);

#endif
