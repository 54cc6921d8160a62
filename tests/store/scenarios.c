#include "scenarios.h"

#define START ACT(MOUNT, 0, 0)
#define STEPS(steps) sizeof(steps) / sizeof(steps)[0], steps

const step RECOVERY[] = {START, SERVE("recovery", 100, 77)};

static const step first_upload[] = {START, SERVE("a", FULL, 1), ACT(MOUNT, 0, 0)};

static const step update[] = {START, SERVE("a", 120, 1), SERVE("a", FULL, 2), SERVE("a", 130, 3)};

static const step revert[] = {
    START,
    SERVE("a", 120, 1),
    CANDIDATE("a", 100, 2),
    ACT(ACTIVATE, "a", 0),
    ACT(REVERT, "a", 0),
    CANDIDATE("a", 100, 3),
    ACT(REVERT, "a", 0),
    CANDIDATE("b", 90, 1),
    ACT(ACTIVATE, "b", 0),
    ACT(REVERT, "b", 0),
};

static const step replace[] = {
    START,
    SERVE("a", 120, 1),
    CANDIDATE("a", 100, 2),
    CANDIDATE("a", 110, 3),
    ACT(ACTIVATE, "a", 0),
    CANDIDATE("a", 110, 4),
    CANDIDATE("b", 90, 1),
    ACT(ACTIVATE, "b", 0),
    CANDIDATE("b", 95, 2),
};

static const step delete[] = {
    START,
    SERVE("a", 120, 1),
    CHECKPOINT("a", 60, 5),
    CANDIDATE("b", 90, 1),
    CANDIDATE("a", 100, 2),
    ACT(ACTIVATE, "a", 0),
    {DELETE, "a", TP_STORE_CHECKPOINT, 0, 0},
    ACT(DELETE, "b", 0),
    ACT(DELETE, "a", 0),
    SERVE("a", 100, 6),
};

static const step checkpoint[] = {
    START,
    SERVE("a", 120, 1),
    CHECKPOINT("a", FULL, 10),
    CHECKPOINT("a", 101, 21),
    {ABANDON, "a", TP_STORE_CHECKPOINT, 200, 30},
    CHECKPOINT("a", 102, 32),
    CHECKPOINT("b", 64, 3),
};

static const step boots[] = {
    START,
    SERVE("a", 120, 1),
    CANDIDATE("a", 100, 2),
    ACT(ACTIVATE, "a", 0),
    ACT(MOUNT, 0, 0),
    ACT(MOUNT, 0, 0),
    ACT(MOUNT, 0, 0),
    CANDIDATE("b", 90, 1),
    ACT(ACTIVATE, "b", 0),
    ACT(MOUNT, 0, 0),
    ACT(MOUNT, 0, 0),
    ACT(MOUNT, 0, 0),
};

static const step collection[] = {
    START,
    SERVE("a", FULL, 1),
    SERVE("b", 90, 1),
    CHECKPOINT("a", 80, 1),
    SERVE("c", 64, 2),
    SERVE("b", 91, 2),
    {ABANDON, "b", TP_STORE_CANDIDATE, 200, 0},
    SERVE("b", 92, 3),
    CHECKPOINT("a", 81, 2),
    SERVE("b", 93, 4),
    CHECKPOINT("a", 82, 3),
    {ABANDON, "d", TP_STORE_CANDIDATE, 250, 3},
    ACT(COLLECT, 0, 0),
    SERVE("b", 94, 5),
    SERVE("c", 95, 5),
    ACT(COLLECT, 0, 0),
};

static const step log_sectors[] = {
    START,
    SERVE("a", 120, 1),
    SERVE("b", 121, 1),
    ACT(ACTIVATE, "a", 0),
    ACT(ACTIVATE, 0, 0),
    ACT(ACTIVATE, "a", 0),
    ACT(ACTIVATE, "b", 0),
    ACT(ACTIVATE, 0, 0),
    ACT(ACTIVATE, "a", 0),
    ACT(ACTIVATE, "b", 0),
    ACT(ACTIVATE, "a", 0),
    ACT(ACTIVATE, 0, 0),
    ACT(ACTIVATE, "a", 0),
    ACT(FORMAT, 0, 0),
    SERVE("b", 100, 2),
};

const scenario SCENARIOS[] = {
    {"first upload", 0, STEPS(first_upload)}, {"update", 4, STEPS(update)},
    {"revert", 4, STEPS(revert)},             {"replaced candidate", 4, STEPS(replace)},
    {"delete", 4, STEPS(delete)},             {"training checkpoint", 4, STEPS(checkpoint)},
    {"boots on test", 6, STEPS(boots)},       {"collection", 4, STEPS(collection)},
    {"change of log sector", 7, STEPS(log_sectors)},
};
_Static_assert(sizeof SCENARIOS / sizeof SCENARIOS[0] == SCENARIOS_COUNT, "SCENARIOS_COUNT");
