"""All searches on one packing: greedy orders, local search, then the exact search, alone or beside CP-SAT."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tinypeft.planner import cp_sat, exact, native
from tinypeft.planner.greedy import greedy_packings
from tinypeft.planner.incumbent import Incumbent
from tinypeft.planner.local_search import improve_locally
from tinypeft.planner.packing import Packing
from tinypeft.planner.restarts import Search, minimise

#: what the searches of a compilation may do: a second or two of one core, counted in what they touch, not in time
_LOCAL_WORK = 100_000
_EXACT_WORK = 25_000_000
_NODE_WORK = 1_500
#: CP-SAT takes a second to load; what the exact search solves sooner does not need it
_CP_SAT_DELAY = 1.0


def pack_fast(packing: Packing, changed: Callable[[Incumbent], None] | None = None) -> Incumbent:
    """A packing found by a bounded, counted effort: the same on every computer, whatever is installed there."""
    incumbent = _pack_simply(packing, changed)
    touched = sum(map(len, packing.members))
    minimise(packing, incumbent, exact.search, nodes=_EXACT_WORK // (_NODE_WORK + touched))
    return incumbent


def pack_exactly(packing: Packing, seconds: float, changed: Callable[[Incumbent], None] | None = None) -> Incumbent:
    """The best packing that two cores find in `seconds`; it ends as soon as one is proved optimal."""
    deadline = time.monotonic() + seconds
    ended = threading.Event()
    incumbent = _pack_simply(packing, changed)

    def stop() -> bool:
        return ended.is_set() or incumbent.optimal or time.monotonic() >= deadline

    search: Search = exact.search if native.why_not_native() else native.search

    def run_beside() -> None:
        if cp_sat.available():
            if not ended.wait(_CP_SAT_DELAY) and not stop():
                cp_sat.minimise_by_cp_sat(packing, incumbent, deadline - time.monotonic(), ended)
        elif search is native.search:  # in Python it would only halve the speed of the other
            minimise(packing, incumbent, search, seed=1, stop=stop)

    with ThreadPoolExecutor(1) as beside:
        other = beside.submit(run_beside) if (os.cpu_count() or 1) > 1 and not stop() else None
        try:
            minimise(packing, incumbent, search, stop=stop)
        finally:
            ended.set()
        if other is not None:
            other.result()
    return incumbent


def _pack_simply(packing: Packing, changed: Callable[[Incumbent], None] | None) -> Incumbent:
    """The best of the greedy orders and of a local search around it."""
    incumbent: Incumbent | None = None
    best_order: list[int] = []
    for name, order, offsets in greedy_packings(packing):
        height = packing.height(offsets)
        if incumbent is None or height < incumbent.height:
            best_order = order
        if incumbent is None:
            incumbent = Incumbent(offsets, height, name, packing.bound, changed=changed)
        else:
            incumbent.improve(offsets, height, name)
        if incumbent.optimal:
            return incumbent
    assert incumbent is not None
    met = sum(map(len, packing.neighbours))
    improve_locally(packing, incumbent, best_order, _LOCAL_WORK // (met + 1))
    return incumbent
