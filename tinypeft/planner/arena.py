"""Offsets in one arena: greedy first fit in several orders, then a local search over orders; an independent check."""

from __future__ import annotations

import random
from dataclasses import dataclass

from tinypeft.errors import VerifyError
from tinypeft.planner.live import Buffer, lower_bound

SEARCH_STEPS = 400


@dataclass(eq=False)
class Plan:
    """Where every buffer lies: `offsets[i]` belongs to `buffers[i]`; `arena_bytes` is the end of the highest.

    `lower_bound` is the most that is live at once, at operation `peak_operation`.
    """

    buffers: list[Buffer]
    offsets: list[int]
    arena_bytes: int
    lower_bound: int
    peak_operation: int

    @property
    def gap(self) -> int:
        """Bytes above the lower bound; 0 proves the plan optimal for its schedule."""
        return self.arena_bytes - self.lower_bound

    def offset_of(self, name: str) -> int:
        """The offset of the buffer that holds the tensor or scratch called `name`."""
        for buffer, offset in zip(self.buffers, self.offsets, strict=True):
            if buffer.name == name or any(t.name == name for t in buffer.tensors):
                return offset
        raise KeyError(name)


def plan_arena(buffers: list[Buffer], pinned: dict[str, int] | None = None, seed: int = 0) -> Plan:
    """The smallest arena found for `buffers`; those whose name is in `pinned` lie at the offset given there.

    Stops when the lower bound is met. The same buffers give the same plan.
    """
    pinned = pinned or {}
    bound, peak_operation = lower_bound(buffers)
    indices = list(range(len(buffers)))
    orders = [sorted(indices, key=lambda i: key(buffers[i])) for key in _ORDERS]
    best_offsets, best_bytes, best_order = _best(buffers, orders, pinned)
    chooser = random.Random(seed)
    for _ in range(SEARCH_STEPS):
        if best_bytes <= bound:
            break
        order = _moved_forward(buffers, best_offsets, best_bytes, best_order, chooser)
        offsets, size, _ = _best(buffers, [order], pinned)
        if size <= best_bytes:
            best_offsets, best_bytes, best_order = offsets, size, order
    plan = Plan(buffers, best_offsets, best_bytes, bound, peak_operation)
    verify_plan(plan)
    return plan


_ORDERS = (
    lambda b: (-b.size, b.first),
    lambda b: (-(b.last - b.first + 1), -b.size, b.first),
    lambda b: (-b.size * (b.last - b.first + 1), b.first),
    lambda b: (b.first, -b.size),
    lambda b: (-b.last, -b.size),
)


def _best(buffers: list[Buffer], orders: list[list[int]], pinned: dict[str, int]) -> tuple[list[int], int, list[int]]:
    results = [(*_first_fit(buffers, order, pinned), order) for order in orders]
    return min(results, key=lambda result: result[1])


def _first_fit(buffers: list[Buffer], order: list[int], pinned: dict[str, int]) -> tuple[list[int], int]:
    offsets = [-1] * len(buffers)
    for i, buffer in enumerate(buffers):
        if buffer.name in pinned:
            offsets[i] = pinned[buffer.name]
    for i in order:
        if offsets[i] >= 0:
            continue
        taken = sorted(
            (offsets[j], offsets[j] + other.size)
            for j, other in enumerate(buffers)
            if offsets[j] >= 0 and other.overlaps(buffers[i])
        )
        offset = 0
        for start, end in taken:
            if start - offset >= buffers[i].size:
                break
            offset = max(offset, end)
        offsets[i] = offset
    return offsets, max((o + b.size for o, b in zip(offsets, buffers, strict=True)), default=0)


def _moved_forward(
    buffers: list[Buffer], offsets: list[int], size: int, order: list[int], chooser: random.Random
) -> list[int]:
    """`order` with a buffer that reaches the top placed earlier, or two swapped."""
    top = [i for i in order if offsets[i] + buffers[i].size == size]
    changed = list(order)
    chosen = chooser.choice(top) if top and chooser.random() < 0.7 else chooser.choice(changed)
    changed.remove(chosen)
    changed.insert(chooser.randrange(len(order)), chosen)
    return changed


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
