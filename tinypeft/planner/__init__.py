"""The memory planner: live ranges of a schedule, their lower bound, and offsets in one arena."""

from tinypeft.planner.arena import Plan, plan_arena, verify_plan
from tinypeft.planner.content import runs
from tinypeft.planner.incumbent import LOWER_BOUND
from tinypeft.planner.live import Buffer, live_buffers, lower_bound
from tinypeft.planner.parts import WHOLE, ArenaPart, ArenaPlan, ArenaRegion
from tinypeft.planner.regions import assign_regions

__all__ = [
    "LOWER_BOUND",
    "WHOLE",
    "ArenaPart",
    "ArenaPlan",
    "ArenaRegion",
    "Buffer",
    "Plan",
    "assign_regions",
    "live_buffers",
    "lower_bound",
    "plan_arena",
    "runs",
    "verify_plan",
]
