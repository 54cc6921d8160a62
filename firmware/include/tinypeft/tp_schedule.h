/* Learning-rate schedules, for devices that train on their own; tinypeft/schedule.py is the same in Python, bit for bit. */
#ifndef TP_SCHEDULE_H
#define TP_SCHEDULE_H

#include "tp_types.h"

typedef enum { TP_SCHEDULE_CONSTANT, TP_SCHEDULE_LINEAR, TP_SCHEDULE_COSINE } tp_schedule_kind;

/* How the rate falls behind the warm-up: not at all, linearly, or as half a wave of a cosine. */
typedef struct {
  tp_schedule_kind kind;
  float learning_rate;   /* the highest */
  uint32_t warmup_steps; /* updates in which it rises, in equal steps up to the highest; at most total_steps */
  uint32_t total_steps;  /* updates after which it is at its last, below 2^31; any value where it is constant */
  float final_fraction;  /* the last rate, as a fraction of the highest: 0 to 1 */
} tp_schedule;

/* The rate of update number `step`, from 0; behind the last it stays. */
float tp_learning_rate(const tp_schedule *schedule, uint32_t step);

#endif
