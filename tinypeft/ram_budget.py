"""Training within a RAM budget: a graph and a budget in, one that runs operations again, and its plan, out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tinypeft.errors import FitError
from tinypeft.ir import Graph, verify
from tinypeft.planner import ArenaPlan
from tinypeft.stages.recompute import RamBudget, Recomputed, recompute
from tinypeft.stages.schedule import schedule, schedule_quickly
from tinypeft.training import TrainingConfig

#: how often a plan that is larger than the bytes live at once may ask for fewer of them
PLAN_ATTEMPTS = 8


def within_budget(
    name: str,
    training: Graph | None,
    arena: ArenaPlan,
    budget: RamBudget,
    beside: int,
    plan: Callable[[Graph | None], ArenaPlan],
    remedies: list[str],
) -> tuple[Recomputed, ArenaPlan]:
    """A training graph that recomputes so much that the arena and what lies `beside` it fit, and its plan.

    Where the scratch of fast kernels is too much, the portable ones take their place. `remedies` are what the error
    suggests beside a larger budget.
    """
    room = (budget.total - beside) // 8 * 8
    smallest, again, target = arena.arena_bytes, 0, room
    for _ in range(PLAN_ATTEMPTS if training is not None else 0):
        assert training is not None
        found = recompute(training, target, schedule_quickly)
        found = replace(found, graph=schedule(verify(found.graph, "recompute")))
        planned = plan(found.graph)
        if planned.arena_bytes <= room:
            return found, planned
        if planned.arena_bytes < smallest:
            smallest, again = planned.arena_bytes, len(found.again)
        if found.peak > target:
            break
        target = found.peak - (planned.arena_bytes - room)
    if training is not None and (lean := without_scratch(training)) is not None:
        return within_budget(name, lean, plan(lean), budget, beside, plan, remedies)
    reached = f"; with {again} operations of training run again it needs {smallest + beside:,} B" if again else ""
    raise FitError(
        f"{name} needs {arena.arena_bytes + beside:,} B of RAM, the budget is {budget.total:,} B{reached}",
        ", or ".join([f"--ram-budget {smallest + beside}", *remedies]),
    )


def without_scratch(graph: Graph) -> Graph | None:
    """The graph with the portable kernels where others need more scratch; None where it has none of those."""
    operations = [
        replace(op, kernel=None) if op.scratch_bytes > op.op.scratch_bytes(op) else op for op in graph.operations
    ]
    if all(new is old for new, old in zip(operations, graph.operations, strict=True)):
        return None
    return Graph(graph.name, graph.inputs, graph.outputs, operations)


def remedies(config: TrainingConfig, latents: bool) -> list[str]:
    """What needs less RAM to train."""
    every = {
        "--grad-bits 8: gradients of half the size": config.grad_bits == 16,
        "a smaller rank: --r": True,
        "--no-latents: a step from latents runs no operation again": latents,
    }
    return [remedy for remedy, helps in every.items() if helps]
