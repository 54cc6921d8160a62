/* The store of a device on its board's flash, and the adapters of its model. */
#include "tinypeft/tp_adapters.h"
#include "tinypeft/tp_board.h"
#include "tinypeft/tp_device.h"

#ifdef TP_STORE
static tp_store store;
static tp_adapters adapters;

tp_adapters *tp_device_adapters(tp_status *status) {
  const tp_flash *flash = tp_board_flash();
  const tp_store_config config = {.flash = flash,
                                  .log_sectors = TP_STORAGE_LOG_SECTORS,
                                  .slot_bytes = TP_DEVICE_SLOT_BYTES,
                                  .test_boots = TP_DEVICE_TEST_BOOTS};
  *status = flash != NULL ? tp_store_mount(&store, &config, NULL) : TP_ERR_FLASH;
  if (*status == TP_OK) {
    *status = tp_adapters_init(&adapters, &tp_device_model, &store, &tp_device_security);
    return &adapters;
  }
  (void)tp_adapters_init(&adapters, &tp_device_model, NULL, &tp_device_security);
  return &adapters;
}
#endif
