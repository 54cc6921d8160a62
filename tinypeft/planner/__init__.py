"""The memory planner: live ranges of a schedule, their lower bound, and offsets in one arena."""

from tinypeft.planner.arena import Plan, plan_arena, verify_plan
from tinypeft.planner.live import Buffer, live_buffers, lower_bound

__all__ = ["Buffer", "Plan", "live_buffers", "lower_bound", "plan_arena", "verify_plan"]
