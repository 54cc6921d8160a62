"""Greedy packings: buffers in an order, each at the lowest gap that holds it or at the tightest one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from tinypeft.planner.packing import FREE, Packing

#: name -> the key by which an order sorts buffer i, least first
ORDERS: dict[str, Callable[[Packing, int], tuple[int, ...]]] = {
    "by size": lambda p, i: (-p.sizes[i], p.starts[i]),
    "by lifetime": lambda p, i: (-p.lifetimes[i], -p.sizes[i], p.starts[i]),
    "by area": lambda p, i: (-p.sizes[i] * p.lifetimes[i], p.starts[i]),
    "by start": lambda p, i: (p.starts[i], -p.sizes[i]),
    "by end": lambda p, i: (-p.starts[i] - p.lifetimes[i], -p.sizes[i]),
}
FIRST_FIT, BEST_FIT = "first fit", "best fit"


def greedy_packings(packing: Packing) -> Iterator[tuple[str, list[int], list[int]]]:
    """(name, order, offsets) of every greedy way: first fit in all orders, then best fit.

    The first is how TFLite Micro plans: the largest buffer first, each at the lowest gap.
    """
    orders = {
        name: sorted(range(len(packing.sizes)), key=lambda i, key=key: key(packing, i))  # type: ignore[misc]
        for name, key in ORDERS.items()
    }
    for fit in (FIRST_FIT, BEST_FIT):
        for name, order in orders.items():
            yield f"{fit} {name}", order, place_in_order(packing, order, fit)


def place_in_order(packing: Packing, order: Sequence[int], fit: str = FIRST_FIT) -> list[int]:
    """Offsets in granules, each buffer of `order` beside those before it and those that are pinned."""
    offsets = list(packing.pins)
    for i in order:
        if offsets[i] != FREE:
            continue
        size = packing.sizes[i]
        taken = sorted((offsets[j], packing.sizes[j]) for j in packing.neighbours[i] if offsets[j] != FREE)
        end, best, tightest = 0, FREE, 0
        for offset, length in taken:
            gap = offset - end
            if gap >= size and (best == FREE or gap < tightest):
                best, tightest = end, gap
                if fit == FIRST_FIT:
                    break
            end = max(end, offset + length)
        offsets[i] = end if best == FREE else best
    return offsets
