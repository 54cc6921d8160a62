"""Offsets in one arena for buffers with lifetimes, how good they are and how that is known; an independent check."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from tinypeft.errors import VerifyError
from tinypeft.planner.incumbent import LOWER_BOUND, Incumbent
from tinypeft.planner.live import Buffer, lower_bound
from tinypeft.planner.packing import make_packing
from tinypeft.planner.portfolio import pack_exactly, pack_fast

#: "fast": bounded by counts, the same plan on every computer; "exact": bounded by time, with all that is installed
Effort = Literal["fast", "exact"]


@dataclass(frozen=True)
class Progress:
    """How far a planning is: the arena so far, the best bound, both in bytes, and what found the one."""

    arena_bytes: int
    bound: int
    method: str
    nodes: int


@dataclass(eq=False)
class Plan:
    """Where every buffer lies: `offsets[i]` belongs to `buffers[i]`; `arena_bytes` is the end of the highest.

    lower_bound  the most that is live at once, at operation `peak_operation`
    bound        the most bytes of which it is proved that no arena is smaller; never below `lower_bound`
    proof        what proves `bound`: "lower bound met", "exact search" or "CP-SAT"
    method       what found the offsets: a greedy order, the local search, the exact search or CP-SAT
    nodes        what the exact search has tried
    """

    buffers: list[Buffer]
    offsets: list[int]
    arena_bytes: int
    lower_bound: int
    peak_operation: int
    bound: int = 0
    proof: str = LOWER_BOUND
    method: str = ""
    nodes: int = 0

    def __post_init__(self) -> None:
        self.bound = max(self.bound, self.lower_bound)

    @property
    def gap(self) -> int:
        """Bytes above the best proved bound."""
        return self.arena_bytes - self.bound

    @property
    def optimal(self) -> bool:
        """Whether it is proved that no arena for these buffers is smaller."""
        return self.gap <= 0

    def offset_of(self, name: str) -> int:
        """Where the tensor or scratch called `name` starts."""
        for buffer, offset in zip(self.buffers, self.offsets, strict=True):
            if buffer.name == name or any(t.name == name for t in buffer.tensors):
                return offset + buffer.inner.get(name, 0)
        raise KeyError(name)


def plan_arena(
    buffers: list[Buffer],
    pinned: Mapping[str, int] | None = None,
    *,
    effort: Effort = "fast",
    time_limit: float = 60.0,
    changed: Callable[[Progress], None] | None = None,
) -> Plan:
    """The smallest arena found for `buffers`; those whose name is in `pinned` lie at the offset given there.

    Stops when a bound is met. With effort "fast" the same buffers give the same plan on every computer; with "exact"
    the search goes on for `time_limit` seconds, and `changed` is told of every improvement, by any thread.
    """
    pinned = pinned or {}
    bound, peak_operation = lower_bound(buffers)
    offsets = [pinned.get(b.name, 0) for b in buffers]
    filled = [i for i, b in enumerate(buffers) if b.size > 0]
    plan = Plan(buffers, offsets, 0, bound, peak_operation, method="nothing to place")
    if filled:
        packing = make_packing([buffers[i] for i in filled], pinned)
        granule = packing.granule

        def tell(found: Incumbent) -> None:
            if changed is not None:
                changed(Progress(found.height * granule, found.bound * granule, found.method, found.nodes))

        found = pack_fast(packing, tell) if effort == "fast" else pack_exactly(packing, time_limit, tell)
        for i, offset in zip(filled, found.offsets, strict=True):
            offsets[i] = offset * granule
        plan.bound, plan.proof = found.bound * granule, found.proof
        plan.method, plan.nodes = found.method, found.nodes
    plan.arena_bytes = max((o + b.size for o, b in zip(offsets, buffers, strict=True)), default=0)
    verify_plan(plan)
    return plan


def verify_plan(plan: Plan) -> None:
    """Raise VerifyError naming both buffers where two that are live together overlap, or one leaves the arena."""
    placed = list(zip(plan.buffers, plan.offsets, strict=True))
    for i, (buffer, offset) in enumerate(placed):
        if offset < 0 or offset % 4 or offset + buffer.size > plan.arena_bytes:
            raise VerifyError(
                f"plan: {buffer.name} at {offset}, {buffer.size} B, leaves the arena of {plan.arena_bytes} B"
            )
        for other, other_offset in placed[:i]:
            apart = offset >= other_offset + other.size or other_offset >= offset + buffer.size
            if not apart and buffer.overlaps(other):
                raise VerifyError(
                    f"plan: {buffer.name} [{offset}, {offset + buffer.size}) and {other.name} "
                    f"[{other_offset}, {other_offset + other.size}) overlap while both are live"
                )
