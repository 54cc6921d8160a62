"""An arena in memory: the RAMs that it may use, the part of it in each, and every graph's plan."""

from __future__ import annotations

from dataclasses import dataclass

from tinypeft.planner.arena import Plan

#: an arena that lies in no particular memory
WHOLE = "arena"


@dataclass(frozen=True)
class ArenaRegion:
    """A RAM, and how many bytes of it the arena may have; None: as many as it needs.

    `shared`: the adapter and the training state lie in it too, and come off its capacity.
    """

    name: str
    capacity: int | None = None
    shared: bool = False


@dataclass(frozen=True)
class ArenaPart:
    """The part of the arena in one RAM: offsets from `start`, which is where the parts before it end."""

    name: str
    start: int
    size: int

    @property
    def end(self) -> int:
        """The first offset behind it."""
        return self.start + self.size


@dataclass(frozen=True)
class ArenaPlan:
    """One plan a graph, by the graph's name; the arena is as large as the largest needs.

    `lower_bound` is the most of which it is proved that no arena for these schedules is smaller, in the same granules
    of 8 bytes. Offsets run through `parts`, one behind the other; no buffer lies across a border.
    """

    plans: dict[str, Plan]
    parts: tuple[ArenaPart, ...]
    lower_bound: int

    @property
    def arena_bytes(self) -> int:
        """The size of all parts together."""
        return self.parts[-1].end

    @property
    def largest(self) -> str:
        """The name of the graph that decides the arena's size."""
        return max(self.plans, key=lambda name: self.plans[name].arena_bytes)

    def used_bytes(self, part: ArenaPart) -> int:
        """How much of `part` the graphs use; the rest is room that firmware has for something else, a package."""
        placed = (pair for plan in self.plans.values() for pair in zip(plan.buffers, plan.offsets, strict=True))
        ends = (offset + buffer.size for buffer, offset in placed if part.start <= offset < part.end)
        return (max(ends, default=part.start) - part.start + 7) // 8 * 8

    def part_of(self, offset: int) -> ArenaPart:
        """The part that `offset` lies in."""
        return next(part for part in reversed(self.parts) if offset >= part.start)
