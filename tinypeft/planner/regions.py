"""Several RAMs: buffers, how often each is touched, and capacities in; the region of every buffer out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tinypeft.planner.arena import plan_arena
from tinypeft.planner.live import Buffer


def assign_regions(
    buffers: Sequence[Buffer], heat: Mapping[str, int], capacities: Sequence[int], first: str = ""
) -> list[int] | None:
    """For each buffer the index of its region; None where no assignment was found that fits.

    heat        bytes that one run reads and writes in a buffer, by its name: the most per byte goes first
    capacities  bytes of the regions, from the fastest to the slowest
    first       the buffer that must lie at the start of its region, the first region that is large enough for it
    """

    def density(i: int) -> tuple[float, ...]:
        return (buffers[i].name != first, -heat.get(buffers[i].name, 0) / max(buffers[i].size, 1), i)

    def homeless(i: int) -> tuple[float, ...]:
        return (buffers[i].name != first, sum(buffers[i].size <= capacity for capacity in capacities), *density(i)[1:])

    def size(i: int) -> tuple[float, ...]:
        return (buffers[i].name != first, -buffers[i].size, i)

    for key in (density, homeless, size):
        regions = _assign(buffers, key, capacities, first)
        if regions is not None:
            return regions
    return None


def _assign(
    buffers: Sequence[Buffer], key: Callable[[int], tuple[float, ...]], capacities: Sequence[int], first: str
) -> list[int] | None:
    """Fill the regions one after the other in the order of `key`: as many as are never too much at once."""
    regions = [-1] * len(buffers)
    remaining = sorted(range(len(buffers)), key=key)
    end = max((buffer.last for buffer in buffers), default=0) + 1
    for region, capacity in enumerate(capacities):
        live = [0] * end
        chosen: list[int] = []
        for i in remaining:
            buffer = buffers[i]
            if max(live[buffer.first : buffer.last + 1]) + buffer.size <= capacity:
                chosen.append(i)
                for time in range(buffer.first, buffer.last + 1):
                    live[time] += buffer.size
        while chosen and _packed([buffers[i] for i in chosen], first) > capacity:
            chosen.pop()
        for i in chosen:
            regions[i] = region
        remaining = [i for i in remaining if regions[i] < 0]
    return None if remaining else regions


def _packed(buffers: list[Buffer], first: str) -> int:
    return plan_arena(buffers, {b.name: 0 for b in buffers if b.name == first}).arena_bytes
