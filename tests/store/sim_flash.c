#include "sim_flash.h"

#include <string.h>

static uint32_t total(const sim_flash *sim) { return sim->flash.sector_bytes * sim->flash.sectors; }

static int inside(const sim_flash *sim, uint32_t offset, uint32_t length) {
  return offset <= total(sim) && length <= total(sim) - offset;
}

static tp_status violated(sim_flash *sim, const char *rule) {
  if (sim->violation == NULL) {
    sim->violation = rule;
  }
  return TP_ERR_FLASH;
}

static void count(sim_flash *sim, int is_erase, uint32_t offset, uint32_t bytes) {
  sim->trace[sim->operations++ % SIM_TRACE_MAX] = (sim_operation){is_erase, offset, bytes};
}

static tp_status sim_read(void *context, uint32_t offset, void *data, uint32_t length) {
  sim_flash *sim = context;
  if (sim->dead) {
    return TP_ERR_FLASH;
  }
  if (!inside(sim, offset, length)) {
    return violated(sim, "read outside the memory");
  }
  memcpy(data, sim->content.bytes + offset, length);
  const uint32_t unit = sim->flash.write_unit;
  for (uint32_t at = offset - offset % unit; at < offset + length; at += unit) {
    if (sim->content.unit[at] == 2) {
      memset(data, 0xA5, length);
      return TP_ERR_FLASH;
    }
  }
  return TP_OK;
}

/* What is left of a unit of which `there` bytes were programmed: it was not touched where it still reads as erased. */
static void tear(sim_flash *sim, uint32_t offset, const uint8_t *data, uint32_t there) {
  memcpy(sim->content.bytes + offset, data, there);
  for (uint32_t i = 0; i < there; i++) {
    if (data[i] != sim->flash.erased) {
      sim->content.unit[offset] = sim->cut == SIM_FAULT ? 2 : 1;
    }
  }
}

static tp_status sim_prog(void *context, uint32_t offset, const void *data, uint32_t length) {
  sim_flash *sim = context;
  const uint32_t unit = sim->flash.write_unit;
  if (sim->dead) {
    return TP_ERR_FLASH;
  }
  if (!inside(sim, offset, length) || offset % unit != 0 || length % unit != 0 || length == 0) {
    return violated(sim, "programmed outside the memory, or no whole units");
  }
  if (sim->content.weak[offset / sim->flash.sector_bytes] ||
      sim->content.weak[(offset + length - 1u) / sim->flash.sector_bytes]) {
    return violated(sim, "programmed where an erasure had not ended");
  }
  count(sim, 0, offset, length);
  if (sim->bad > 0) {
    sim->bad--;
    return TP_OK;
  }
  uint32_t limit = length;
  if (sim->operations == sim->cut_at) {
    sim->dead = 1;
    limit = sim->cut == SIM_BEFORE ? 0 : sim->cut_bytes;
  }
  const uint8_t *from = data;
  for (uint32_t at = 0; at < limit; at += unit) {
    if (sim->content.unit[offset + at] != 0) {
      return violated(sim, "a unit programmed twice");
    }
    if (limit - at < unit || (sim->dead && sim->cut == SIM_FAULT && limit - at == unit)) {
      tear(sim, offset + at, from + at, limit - at);
    } else {
      memcpy(sim->content.bytes + offset + at, from + at, unit);
      sim->content.unit[offset + at] = 1;
    }
  }
  return sim->dead || sim->fails ? TP_ERR_FLASH : TP_OK;
}

static int reached(sim_cut cut, uint32_t i, uint32_t sector_bytes) {
  switch (cut) {
    case SIM_FIRST_HALF:
      return i >= sector_bytes / 2u;
    case SIM_SECOND_HALF:
      return i < sector_bytes / 2u;
    case SIM_SCATTERED:
      return (i * 2654435761u >> 28) % 3u != 0;
    default:
      return 1;
  }
}

static tp_status sim_erase(void *context, uint32_t sector) {
  sim_flash *sim = context;
  if (sim->dead) {
    return TP_ERR_FLASH;
  }
  if (sector >= sim->flash.sectors) {
    return violated(sim, "erased outside the memory");
  }
  if (sim->fails) {
    return TP_ERR_FLASH;
  }
  const uint32_t bytes = sim->flash.sector_bytes;
  count(sim, 1, sector * bytes, bytes);
  sim->dead = sim->operations == sim->cut_at;
  if (sim->dead && sim->cut == SIM_BEFORE) {
    return TP_ERR_FLASH;
  }
  sim->content.erases[sector]++;
  sim->content.weak[sector] = (uint8_t)sim->dead;
  for (uint32_t i = 0; i < bytes; i++) {
    if (!sim->dead || reached(sim->cut, i, bytes)) {
      sim->content.bytes[sector * bytes + i] = sim->flash.erased;
      sim->content.unit[sector * bytes + i] = 0;
    }
  }
  return sim->dead ? TP_ERR_FLASH : TP_OK;
}

void sim_init(sim_flash *sim, uint32_t sector_bytes, uint32_t sectors, uint32_t write_unit, uint8_t erased) {
  memset(sim, 0, sizeof *sim);
  memset(sim->content.bytes, erased, sizeof sim->content.bytes);
  sim->flash = (tp_flash){
      .context = sim,
      .read = sim_read,
      .prog = sim_prog,
      .erase = sim_erase,
      .sector_bytes = sector_bytes,
      .sectors = sectors,
      .write_unit = write_unit,
      .erased = erased,
  };
}

void sim_power(sim_flash *sim, uint32_t cut_at, sim_cut cut, uint32_t cut_bytes) {
  sim->operations = 0;
  sim->cut_at = cut_at;
  sim->cut = cut;
  sim->cut_bytes = cut_bytes;
  sim->dead = 0;
}
