"""Local search: first fit in ever changed orders, from the best greedy one."""

from __future__ import annotations

import random

from tinypeft.planner.greedy import place_in_order
from tinypeft.planner.incumbent import Incumbent
from tinypeft.planner.packing import Packing

METHOD = "local search"
_TOP_FIRST = 0.7


def improve_locally(packing: Packing, incumbent: Incumbent, order: list[int], steps: int) -> None:
    """Try `steps` orders near the best one, which starts as `order`: what reaches the top is placed earlier."""
    chooser = random.Random(0)
    offsets = place_in_order(packing, order)
    height = packing.height(offsets)
    for _ in range(steps):
        if incumbent.optimal:
            return
        changed = _moved(packing, offsets, height, order, chooser)
        placed = place_in_order(packing, changed)
        reached = packing.height(placed)
        if reached <= height:
            offsets, height, order = placed, reached, changed
            incumbent.improve(offsets, height, METHOD)


def _moved(packing: Packing, offsets: list[int], height: int, order: list[int], chooser: random.Random) -> list[int]:
    """`order` with a buffer that reaches the top, or now and then any, somewhere else."""
    top = [i for i in order if offsets[i] + packing.sizes[i] == height]
    chosen = chooser.choice(top if top and chooser.random() < _TOP_FIRST else order)
    changed = [i for i in order if i != chosen]
    changed.insert(chooser.randrange(len(order)), chosen)
    return changed
