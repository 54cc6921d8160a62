"""The packing problem in the searches' own terms: sizes in granules, lifetimes in sections, who meets whom."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tinypeft.planner.live import Buffer

#: no offset: a buffer that is not pinned
FREE = -1


@dataclass(frozen=True, eq=False)
class Packing:
    """Buffers as numbers; buffer i is `buffers[i]` of what it was made from, in order of time where `order` says so.

    granule      bytes of one unit of every size and offset here: their greatest common divisor
    sizes        of each buffer, in granules
    pins         the offset of a pinned buffer, in granules, else FREE
    starts       the first operation that each lives at
    lifetimes    operations that a buffer lives for
    first, last  its sections, both included. A section is a largest set of buffers that are all live at once; every
                 two that are ever live together share one.
    members      by section, the buffers that are live in it
    totals       by section, the sum of their sizes
    neighbours   by buffer, the others that are live at some time with it
    order        every buffer, by its first section
    """

    granule: int
    sizes: tuple[int, ...]
    pins: tuple[int, ...]
    starts: tuple[int, ...]
    lifetimes: tuple[int, ...]
    first: tuple[int, ...]
    last: tuple[int, ...]
    members: tuple[tuple[int, ...], ...]
    totals: tuple[int, ...]
    neighbours: tuple[tuple[int, ...], ...]
    order: tuple[int, ...]

    @property
    def bound(self) -> int:
        """No packing is lower: so much is live at once, or pinned so high."""
        pinned = (pin + size for pin, size in zip(self.pins, self.sizes, strict=True) if pin != FREE)
        return max([*self.totals, *pinned])

    def height(self, offsets: Sequence[int]) -> int:
        """The end of the highest buffer, in granules."""
        return max((o + s for o, s in zip(offsets, self.sizes, strict=True)), default=0)


def make_packing(buffers: Sequence[Buffer], pinned: Mapping[str, int]) -> Packing:
    """The problem of placing `buffers`, none of which is empty, those of `pinned` at the offsets given there."""
    pins = [pinned.get(b.name, FREE) for b in buffers]
    granule = math.gcd(*(b.size for b in buffers), *(pin for pin in pins if pin != FREE)) or 1
    times = _section_times(buffers)
    first = [bisect_left(times, b.first) for b in buffers]
    last = [bisect_right(times, b.last) - 1 for b in buffers]
    members: list[list[int]] = [[] for _ in times]
    for i in range(len(buffers)):
        for section in range(first[i], last[i] + 1):
            members[section].append(i)
    sizes = [b.size // granule for b in buffers]
    neighbours = [
        sorted({j for s in range(first[i], last[i] + 1) for j in members[s]} - {i}) for i in range(len(buffers))
    ]
    return Packing(
        granule,
        tuple(sizes),
        tuple(pin if pin == FREE else pin // granule for pin in pins),
        tuple(b.first for b in buffers),
        tuple(b.last - b.first + 1 for b in buffers),
        tuple(first),
        tuple(last),
        tuple(map(tuple, members)),
        tuple(sum(sizes[i] for i in section) for section in members),
        tuple(map(tuple, neighbours)),
        tuple(sorted(range(len(buffers)), key=lambda i: first[i])),
    )


def _section_times(buffers: Sequence[Buffer]) -> list[int]:
    """The times at which the sections are live: the last start up to each end."""
    starts = sorted({b.first for b in buffers})
    return sorted({starts[bisect_right(starts, b.last) - 1] for b in buffers})
