/* Cuts the power before, inside and after every flash operation of every scenario in many geometries, and a second time
 * while the store recovers: `power_cuts [every [second [shard shards]]]` takes each `every`th cut, and after each
 * `second`th of them all cuts of what follows. Prints how many there were; the first that loses anything ends it by
 * name. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scenarios.h"
#include "sim_flash.h"
#include "tp_store_log.h"

#define POSSIBLE_MAX 8u

typedef struct {
  model models[POSSIBLE_MAX];
  uint32_t count;
} possible;

static sim_flash sim;
static tp_store store;
static tp_store_config config;
static struct {
  unsigned long seen, cuts, second, collections, rotations;
} totals;
static unsigned long every = 1, second_every = 25;
/* what a failure is called by */
static char geometry_name[96];
static const char *scenario_name;
static uint32_t step_number;
static step_kind step_now;
static struct {
  uint32_t operation, bytes;
  sim_cut cut;
} named[2];

static const char *const STEP_NAMES[] = {"mount",  "upload", "upload given up", "activate", "confirm",
                                         "revert", "delete", "collect",         "format"};
static const char *const CUT_NAMES[SIM_CUTS] = {
    "cut before",
    "cut inside",
    "cut inside, which reads as a fault,",
    "erasure cut, the first half left, of",
    "erasure cut, the second half left, of",
    "erasure cut, scattered bytes left, of",
    "erasure cut, all looking erased, of",
};

static void fail(const char *what) {
  printf("FAILED %s; %s, step %u, %s", geometry_name, scenario_name, step_number, STEP_NAMES[step_now]);
  for (uint32_t i = 0; i < 2 && named[i].operation > 0; i++) {
    printf("; %s%s operation %u", i > 0 ? "and in the recovery " : "", CUT_NAMES[named[i].cut], named[i].operation);
    if (named[i].cut == SIM_PREFIX || named[i].cut == SIM_FAULT) {
      printf(" after %u bytes", named[i].bytes);
    }
  }
  printf(": %s\n", what);
  exit(1);
}

static void check_rules(void) {
  if (sim.violation != NULL) {
    fail(sim.violation);
  }
}

static void add(possible *states, const model *state) {
  for (uint32_t i = 0; i < states->count; i++) {
    if (memcmp(&states->models[i], state, sizeof *state) == 0) {
      return;
    }
  }
  states->models[states->count++] = *state;
}

static void check_step(const step *next, model *expected) {
  static char text[128];
  const tp_status status = store_step(&store, &config, next);
  check_rules();
  if (status != TP_OK) {
    (void)snprintf(text, sizeof text, "%s gives %d", STEP_NAMES[next->kind], (int)status);
    fail(text);
  }
  model_step(expected, next);
  const char *wrong = model_differs(expected, &store);
  if (wrong != NULL) {
    fail(wrong);
  }
}

/* After a cut that left one of `states`: the store mounts, holds one of them, and takes a further update. */
static void check_recovery(const possible *states) {
  const char *wrong = NULL;
  sim_power(&sim, 0, SIM_BEFORE, 0);
  if (store_step(&store, &config, &RECOVERY[0]) != TP_OK) {
    fail("it cannot be mounted any more");
  }
  check_rules();
  for (uint32_t i = 0; i < states->count; i++) {
    model expected = states->models[i];
    model_step(&expected, &RECOVERY[0]);
    wrong = model_differs(&expected, &store);
    if (wrong == NULL) {
      for (uint32_t j = 1; j < RECOVERY_STEPS; j++) {
        check_step(&RECOVERY[j], &expected);
      }
      check_step(&RECOVERY[0], &expected);
      return;
    }
  }
  fail(wrong);
}

/* Every way to cut operation `n`; calls `visit` for each. */
static void each_cut(uint32_t n, const sim_operation *cut, void (*visit)(uint32_t, sim_cut, uint32_t, void *),
                     void *context) {
  const uint32_t word = sim.flash.write_unit < 4u ? sim.flash.write_unit : 4u;
  visit(n, SIM_BEFORE, 0, context);
  if (cut->is_erase) {
    for (sim_cut how = SIM_FIRST_HALF; how < SIM_CUTS; how++) {
      visit(n, how, cut->bytes, context);
    }
    return;
  }
  for (uint32_t bytes = word; bytes < cut->bytes; bytes += word) {
    visit(n, SIM_PREFIX, bytes, context);
  }
  for (uint32_t bytes = word; bytes <= cut->bytes && sim.flash.write_unit > 1u; bytes += word) {
    visit(n, SIM_FAULT, bytes, context);
  }
}

typedef struct {
  sim_content content;
  tp_store store;
} saved;

static void save(saved *to) {
  to->content = sim.content;
  to->store = store;
}

static void restore(const saved *from) {
  sim.content = from->content;
  store = from->store;
}

typedef struct {
  const saved *start;
  const possible *states;
} second_cut;

static void visit_second(uint32_t n, sim_cut cut, uint32_t bytes, void *context) {
  const second_cut *first = context;
  /* of programming, two places: some words are there, and nearly all */
  if ((cut == SIM_PREFIX || cut == SIM_FAULT) && bytes != 32u && bytes != 60u) {
    return;
  }
  possible states = {.count = 0};
  restore(first->start);
  named[1].operation = n;
  named[1].cut = cut;
  named[1].bytes = bytes;
  sim_power(&sim, n, cut, bytes);
  /* what is true after a cut within the mount, then after one within each of the steps behind it */
  possible before = *first->states;
  for (uint32_t j = 0; j < RECOVERY_STEPS && !sim.dead; j++) {
    (void)store_step(&store, &config, &RECOVERY[j]);
    possible after = {.count = 0};
    states = before;
    for (uint32_t i = 0; i < before.count; i++) {
      model expected = before.models[i];
      model_step(&expected, &RECOVERY[j]);
      if (j > 0 || sim.dead || model_differs(&expected, &store) == NULL) {
        add(&states, &expected);
        add(&after, &expected);
      }
    }
    before = after;
  }
  check_rules();
  if (!sim.dead) {
    fail("a cut that did not come: the recovery is not deterministic");
  }
  totals.second++;
  check_recovery(&states);
  named[1].operation = 0;
}

static void cut_recovery(const saved *start, const possible *states) {
  static sim_operation trace[SIM_TRACE_MAX];
  restore(start);
  check_recovery(states);
  /* the last mount of a recovery belongs to the check */
  restore(start);
  sim_power(&sim, 0, SIM_BEFORE, 0);
  for (uint32_t j = 0; j < RECOVERY_STEPS; j++) {
    (void)store_step(&store, &config, &RECOVERY[j]);
  }
  const uint32_t operations = sim.operations;
  memcpy(trace, sim.trace, sizeof trace);
  second_cut first = {start, states};
  for (uint32_t n = 1; n <= operations; n++) {
    each_cut(n, &trace[n - 1u], visit_second, &first);
  }
}

typedef struct {
  const saved *start;
  const model *before, *after;
  const step *next;
} first_cut;

static void visit_first(uint32_t n, sim_cut cut, uint32_t bytes, void *context) {
  static saved left;
  const first_cut *around = context;
  if (totals.seen++ % every != 0) {
    return;
  }
  restore(around->start);
  named[0].operation = n;
  named[0].cut = cut;
  named[0].bytes = bytes;
  sim_power(&sim, n, cut, bytes);
  (void)store_step(&store, &config, around->next);
  check_rules();
  if (n > 0 && !sim.dead) {
    fail("a cut that did not come: the step is not deterministic");
  }
  possible states = {.count = 0};
  if (n > 0) {
    add(&states, around->before);
  }
  add(&states, around->after);
  totals.cuts++;
  if (second_every > 0 && totals.cuts % second_every == 0) {
    save(&left);
    cut_recovery(&left, &states);
  } else {
    check_recovery(&states);
  }
  named[0].operation = 0;
}

static int moved(const tp_store *before) {
  for (uint32_t slot = 0; before->block_slots > 1u && slot < tp_store_slot_count(before); slot++) {
    if (tp_store_slot_counts(before, slot, NULL) && tp_store_slot_counts(&store, slot, NULL) &&
        tp_store_slot_offset(before, slot) != tp_store_slot_offset(&store, slot)) {
      return 1;
    }
  }
  return 0;
}

static void run_scenario(const scenario *run) {
  static saved start, done;
  static sim_operation trace[SIM_TRACE_MAX];
  model expected = {.test_boots = config.test_boots, .erased = sim.flash.erased};
  scenario_name = run->name;
  for (step_number = 0; step_number < run->count; step_number++) {
    step next = run->steps[step_number];
    if (next.bytes == FULL) {
      next.bytes = config.slot_bytes;
    }
    const model before = expected;
    step_now = next.kind;
    save(&start);
    sim_power(&sim, 0, SIM_BEFORE, 0);
    check_step(&next, &expected);
    save(&done);
    if (step_number > 0) {
      totals.rotations += start.store.log_sequence != done.store.log_sequence ? 1u : 0u;
      totals.collections += moved(&start.store) ? 1u : 0u;
    }
    const uint32_t operations = sim.operations;
    memcpy(trace, sim.trace, sizeof trace);
    if (step_number >= run->setup && operations > 0) {
      first_cut around = {&start, &before, &expected, &next};
      for (uint32_t n = 1; n <= operations; n++) {
        each_cut(n, &trace[n - 1u], visit_first, &around);
      }
      visit_first(0, SIM_BEFORE, 0, &around);
    }
    restore(&done);
  }
}

int main(int argc, char **argv) {
  static const uint32_t units[] = {1, 4, 8, 32}, logs[] = {2, 3, 8}, slots[] = {256, 1000, 1500};
  const unsigned long shard = argc > 3 ? strtoul(argv[3], NULL, 10) : 0;
  const unsigned long shards = argc > 4 ? strtoul(argv[4], NULL, 10) : 1;
  every = argc > 1 ? strtoul(argv[1], NULL, 10) : 1;
  second_every = argc > 2 ? strtoul(argv[2], NULL, 10) : second_every;
  for (unsigned long i = 0; i < 72; i++) {
    if (i % shards != shard) {
      continue;
    }
    const uint32_t unit = units[i % 4u], log = logs[i / 4u % 3u], slot = slots[i / 12u % 3u];
    const uint8_t erased = i / 36u > 0 ? 0x00 : 0xFF;
    const uint32_t behind = slot > 1024u ? 18u : slot > 512u ? 9u : 4u;
    (void)snprintf(geometry_name, sizeof geometry_name, "write unit %u, erased %02X, %u log sectors, slots of %u", unit,
                   erased, log, slot);
    for (uint32_t j = 0; j < SCENARIOS_COUNT; j++) {
      sim_init(&sim, 1024, log + behind, unit, erased);
      if (log == 3u) { /* memory that held something else */
        memset(sim.content.bytes, 0x5A, sizeof sim.content.bytes);
        memset(sim.content.unit, 1, sizeof sim.content.unit);
      }
      config = (tp_store_config){.flash = &sim.flash, .log_sectors = log, .slot_bytes = slot, .test_boots = 2};
      run_scenario(&SCENARIOS[j]);
    }
  }
  printf("%lu cuts, %lu second cuts, %lu steps that moved slots, %lu that changed the log sector\n", totals.cuts,
         totals.second, totals.collections, totals.rotations);
  return 0;
}
