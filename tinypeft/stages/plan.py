"""Plan: the scheduled graphs of a model into one arena. The input lies at offset 0 in all of them."""

from __future__ import annotations

from dataclasses import dataclass

from tinypeft.ir import Graph
from tinypeft.planner import Plan, live_buffers, plan_arena


@dataclass(frozen=True)
class ArenaPlan:
    """One plan a graph, by the graph's name; the arena is as large as the largest needs.

    `lower_bound` is the smallest arena that these schedules allow, in the same granules of 8 bytes.
    """

    plans: dict[str, Plan]
    arena_bytes: int
    lower_bound: int

    @property
    def largest(self) -> str:
        """The name of the graph that decides the arena's size."""
        return max(self.plans, key=lambda name: self.plans[name].arena_bytes)


def plan_graphs(graphs: list[Graph], minimum: int = 0) -> ArenaPlan:
    """Plan every graph; the arena has at least `minimum` bytes."""
    plans = {}
    for graph in graphs:
        inputs = [t.name for t in graph.inputs if t.in_arena]
        plans[graph.name] = plan_arena(live_buffers(graph), dict.fromkeys(inputs, 0))
    size = max([minimum, *(plan.arena_bytes for plan in plans.values())])
    bound = max([minimum, *(plan.lower_bound for plan in plans.values())])
    return ArenaPlan(plans, (size + 7) // 8 * 8, (bound + 7) // 8 * 8)
