"""Orders of operations with a small peak: exact by best-first search over sets of operations, else a beam."""

from __future__ import annotations

import heapq

from tinypeft.planner.order_model import OrderModel, bits

#: sets of operations that the exact search may look at, and that the beam carries along
STATES, BEAM = 12_000, 24


def exact_order(model: OrderModel, at_least: int, states: int = STATES) -> tuple[list[int] | None, int]:
    """(an order of the smallest peak, that peak), or (None, a lower bound of it) where there are too many sets.

    `at_least`: a peak that is known to be unavoidable.
    """
    start = max(at_least, model.start_bytes)
    parents: dict[int, tuple[int, int]] = {}
    seen = {0: start}
    queue = [(start, 0, 0, model.start_bytes, model.ready)]
    while queue:
        peak, _, done, live, ready = heapq.heappop(queue)
        if done == model.all:
            return _path(parents, done), peak
        if seen[done] < peak:
            continue
        for index, during, behind in _moves(model, done, live, ready, peak):
            after = done | 1 << index
            reached = max(peak, during)
            if seen.get(after, reached + 1) <= reached:
                continue
            seen[after] = reached
            parents[after] = done, index
            new = ready & ~(1 << index) | model.newly_ready(index, after)
            heapq.heappush(queue, (reached, -after.bit_count(), after, behind, new))
        if len(seen) > states:
            return None, peak
    return None, start


def beam_order(model: OrderModel, at_least: int, width: int = BEAM) -> list[int]:
    """An order with a small peak; the more sets are carried along, the smaller it may be."""
    parents: dict[int, tuple[int, int]] = {}
    level = [(max(at_least, model.start_bytes), model.start_bytes, 0, model.ready)]
    for _ in model.steps:
        found: dict[int, tuple[int, int, int, int]] = {}
        for peak, live, done, ready in level:
            for index, during, behind in _moves(model, done, live, ready, peak):
                after = done | 1 << index
                reached = max(peak, during)
                if after not in found or reached < found[after][0]:
                    parents[after] = done, index
                    new = ready & ~(1 << index) | model.newly_ready(index, after)
                    found[after] = reached, behind, after, new
        level = sorted(found.values())[:width]
    return _path(parents, model.all)


def _moves(model: OrderModel, done: int, live: int, ready: int, peak: int) -> list[tuple[int, int, int]]:
    """(operation, bytes while it runs, bytes behind it) of those that may run next.

    One that fits under the peak and leaves no more than there was costs nothing whatever follows: it alone, of several
    the one that leaves the fewest.
    """
    moves = [(index, *model.run(index, done, live)) for index in bits(ready)]
    free = [move for move in moves if move[1] <= peak and move[2] <= live]
    return [min(free, key=lambda move: move[2])] if free else moves


def _path(parents: dict[int, tuple[int, int]], done: int) -> list[int]:
    order = []
    while done:
        done, index = parents[done]
        order.append(index)
    return order[::-1]
