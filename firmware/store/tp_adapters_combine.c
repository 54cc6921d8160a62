/* Weighted sums of stored adapters: adapter_combine.py's operations in its order, each a single one in float32. */
#include <string.h>

#include "tinypeft/tp_arithmetic.h"
#include "tp_adapters_memory.h"

static float *master_of(const tp_model *model, const tp_master *master) {
  return (float *)(void *)((uint8_t *)model->training(model->self) + master->offset);
}

static uint32_t elements_of(const tp_master *master) { return master->outer * master->rank * master->inner; }

static float factor_of(const tp_master *master, tp_adapters_method method, float weight) {
  if (master->role == TP_MASTER_OTHER) {
    return weight;
  }
  if (method == TP_ADAPTERS_CAT) {
    return master->role == TP_MASTER_LORA_B ? weight : 1.0f;
  }
  const float root = tp_sqrt_f32(weight < 0.0f ? -weight : weight);
  return master->role == TP_MASTER_LORA_A && weight < 0.0f ? -root : root;
}

/* Up to the last row of an A that is not 0. */
static uint32_t rows_used(const tp_master *master, const float *a) {
  uint32_t size = elements_of(master);
  while (size > 0 && !(a[size - 1u] < 0.0f || a[size - 1u] > 0.0f)) {
    size--;
  }
  return (size + master->inner - 1u) / master->inner;
}

/* total[:, at : at + count] += factor * values[:, :count] */
static void add_rows(const tp_master *master, float *total, const float *values, float factor, uint32_t at,
                     uint32_t count) {
  for (uint32_t outer = 0; outer < master->outer; outer++) {
    for (uint32_t i = 0; i < count * master->inner; i++) {
      total[at * master->inner + i] += factor * values[i];
    }
    total += master->rank * master->inner;
    values += master->rank * master->inner;
  }
}

/* Add the masters in training() to the sums. */
static tp_status add_masters(const tp_model *model, tp_adapters_method method, float weight, float *total) {
  uint32_t at = 0, count = 1;
  for (uint32_t i = 0; i < model->masters->count; i++) {
    const tp_master *master = &model->masters->masters[i];
    const float *values = master_of(model, master);
    if (master->role != TP_MASTER_LORA_B) { /* whose columns go where the rows of A went */
      at = 0;
      count = master->rank;
      if (master->role == TP_MASTER_LORA_A && method == TP_ADAPTERS_CAT) {
        at = rows_used(master, total);
        count = rows_used(master, values);
      }
    }
    if (at + count > master->rank) {
      return TP_ERR_RANK;
    }
    add_rows(master, total, values, factor_of(master, method, weight), at, count);
    total += elements_of(master);
  }
  return TP_OK;
}

/* The sums and `rest` of the fresh adapter in training() become the masters. */
static void set_masters(const tp_model *model, float rest, const float *total) {
  for (uint32_t i = 0; i < model->masters->count; i++) {
    const tp_master *master = &model->masters->masters[i];
    float *values = master_of(model, master);
    for (uint32_t element = 0; element < elements_of(master); element++) {
      values[element] = master->role == TP_MASTER_OTHER ? total[element] + rest * values[element] : total[element];
    }
    total += elements_of(master);
  }
}

static int32_t *logit_range_of(const tp_model *model) {
  const uint32_t offset = model->masters->logit_range;
  return offset == TP_NO_LOGIT_RANGE ? NULL : (int32_t *)(void *)((uint8_t *)model->training(model->self) + offset);
}

static tp_status sum(tp_adapters *adapters, const tp_adapters_part *parts, uint32_t count, tp_adapters_method method,
                     float *total) {
  const tp_model *model = adapters->model;
  const uint32_t index = tp_adapters_make_room(adapters);
  int32_t low = 0, high = 0, *logit_range = logit_range_of(model);
  float rest = 1.0f;
  tp_adapters_serve(adapters, index); /* so that the model's functions work on that memory */
  for (uint32_t i = 0; i < count; i++) {
    const tp_store_entry *entry;
    tp_package_header header;
    tp_status status = tp_adapters_find(adapters, parts[i].id, &entry);
    if (status == TP_OK) {
      status = tp_adapters_check(adapters, entry, tp_store_serving(entry), &header);
    }
    if (status == TP_OK) {
      status = tp_adapters_read(adapters, entry, tp_store_serving(entry), &header, index);
    }
    if (status == TP_OK) {
      status = model->prepare_training(model->self);
    }
    if (status == TP_OK) {
      status = add_masters(model, method, parts[i].weight, total);
    }
    if (status != TP_OK) {
      return status;
    }
    if (logit_range != NULL) {
      low = tp_min_s32(low, logit_range[0]);
      high = tp_max_s32(high, logit_range[1]);
    }
    rest -= parts[i].weight;
  }
  const tp_status status = model->reset_adapter(model->self, 0);
  if (status != TP_OK) {
    return status;
  }
  set_masters(model, rest, total);
  if (logit_range != NULL) {
    logit_range[0] = low;
    logit_range[1] = high;
  }
  adapters->residents[index].changed = 1;
  return model->requantize(model->self);
}

tp_status tp_adapters_combine(tp_adapters *adapters, const tp_adapters_part *parts, uint32_t count,
                              tp_adapters_method method) {
  const tp_model *model = adapters->model;
  const tp_masters *masters = model->masters;
  if (adapters->store == NULL || masters == NULL || TP_RESIDENT < 2) {
    return TP_ERR_UNSUPPORTED;
  }
  if (count == 0 || (uint32_t)method > TP_ADAPTERS_CAT) {
    return TP_ERR_ARGUMENT;
  }
  for (uint32_t i = 0; i < count; i++) { /* before anything in memory is given up */
    const tp_store_entry *entry;
    const tp_status status = tp_adapters_find(adapters, parts[i].id, &entry);
    if (status != TP_OK) {
      return status;
    }
    if (tp_store_serving(entry) == TP_STORE_PARTS) {
      return TP_ERR_NOT_FOUND;
    }
    if (!(parts[i].weight >= -TP_WEIGHT_LIMIT && parts[i].weight <= TP_WEIGHT_LIMIT)) {
      return TP_ERR_ARGUMENT;
    }
  }
  if (masters->arena_offset > model->arena_bytes ||
      masters->elements > (model->arena_bytes - masters->arena_offset) / sizeof(float)) {
    return TP_ERR_SIZE;
  }
  float *total = (float *)(void *)((uint8_t *)model->arena(model->self) + masters->arena_offset);
  memset(total, 0, masters->elements * sizeof(float));
  const uint32_t served = adapters->serving;
  const tp_status status = sum(adapters, parts, count, method, total);
  if (status != TP_OK) {
    tp_resident_forget(&adapters->residents[adapters->serving]);
    tp_adapters_serve(adapters, served);
  }
  return status;
}
