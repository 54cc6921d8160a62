"""The exact search as a minimiser: many short runs in several orders, for one capacity after another."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tinypeft.planner.exact import Outcome, Rule, Verdict
from tinypeft.planner.incumbent import EXACT_SEARCH, Incumbent
from tinypeft.planner.packing import Packing

#: nodes of the shortest run: enough to place every buffer with some turning back
_RUN_NODES = 100
_RUN_NODES_PER_BUFFER = 2
_RUNS_PER_CAPACITY = 2
_NOISE = 0.3

#: exact.search, or native.search
Search = Callable[[Packing, int, Sequence[int], Rule, int, Callable[[], bool]], Outcome]


@dataclass(frozen=True)
class _Strategy:
    """How a run goes: `key` gives a buffer's weight from the packing and a factor of chance; heavy ones come first."""

    name: str
    key: Callable[[Packing, int, Callable[[float], float]], tuple[float, float]]
    rule: Rule


def _longest(packing: Packing, i: int, chance: Callable[[float], float]) -> tuple[float, float]:
    return packing.lifetimes[i] * chance(_NOISE), packing.sizes[i]


def _crowded(packing: Packing, i: int, chance: Callable[[float], float]) -> tuple[float, float]:
    most = max(packing.totals[packing.first[i] : packing.last[i] + 1])
    return int(most * chance(_NOISE / 10)), packing.lifetimes[i] * chance(_NOISE)


def _largest_area(packing: Packing, i: int, chance: Callable[[float], float]) -> tuple[float, float]:
    return (packing.last[i] - packing.first[i] + 1) * packing.sizes[i] * chance(_NOISE), 0.0


_STRATEGIES = (
    _Strategy("longest, lowest section", _longest, Rule.FORCED_THEN_LOWEST),
    _Strategy("most crowded, fewest options", _crowded, Rule.FEWEST_OPTIONS),
    _Strategy("most crowded, lowest section", _crowded, Rule.FORCED_THEN_LOWEST),
    _Strategy("largest area, lowest section", _largest_area, Rule.FORCED_THEN_LOWEST),
    _Strategy("longest, fewest options", _longest, Rule.FEWEST_OPTIONS),
)


def minimise(
    packing: Packing,
    incumbent: Incumbent,
    search: Search,
    *,
    seed: int = 0,
    nodes: int | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Improve `incumbent` until it is optimal, `nodes` have been tried, or `stop` says so.

    With `nodes` alone the result is the same everywhere and with either search, exact's or native's. Each round tries
    the bound itself, then capacities between what it failed at and the best packing; rounds double in effort.
    """
    chooser = random.Random(seed)
    runs = _runs(packing, chooser)
    left = nodes if nodes is not None else 1 << 62
    effort = 1
    while not incumbent.optimal:
        failed = incumbent.bound - 1  # nothing was found at this capacity in this round
        at_bound = True
        while not incumbent.optimal and failed < incumbent.height - 1:
            start = max(failed + 1, incumbent.bound)
            capacity = start if at_bound else (start + incumbent.height - 1) // 2
            at_bound = False
            for _ in range(_RUNS_PER_CAPACITY * effort):
                if left <= 0 or stop():
                    return
                strategy, rank, limit = next(runs)
                outcome = search(packing, capacity, rank, strategy.rule, min(limit, left), stop)
                left -= outcome.nodes
                incumbent.count(outcome.nodes)
                if outcome.verdict is Verdict.FOUND:
                    incumbent.improve(outcome.offsets, packing.height(outcome.offsets), f"search: {strategy.name}")
                elif outcome.verdict is Verdict.IMPOSSIBLE:
                    incumbent.raise_bound(capacity + 1, EXACT_SEARCH)
                if not incumbent.bound <= capacity < incumbent.height:  # decided, here or by another thread
                    break
            else:
                failed = capacity
        effort *= 2


def _runs(packing: Packing, chooser: random.Random) -> Iterator[tuple[_Strategy, list[int], int]]:
    """Without end: a strategy, its rank of every buffer, and how many nodes it may try."""
    count = len(packing.sizes)
    shortest = _RUN_NODES + _RUN_NODES_PER_BUFFER * count
    number = 0
    while True:
        number += 1
        for strategy in _STRATEGIES:
            chance = _factor(chooser) if number > 1 else _certain
            weights = [strategy.key(packing, i, chance) for i in range(count)]
            rank = [0] * count
            for place, i in enumerate(sorted(range(count), key=weights.__getitem__, reverse=True)):
                rank[i] = place
            yield strategy, rank, shortest * _luby(number)


def _certain(_: float) -> float:
    return 1.0


def _factor(chooser: random.Random) -> Callable[[float], float]:
    return lambda spread: 1.0 + spread * (2.0 * chooser.random() - 1.0)


def _luby(number: int) -> int:
    """1, 1, 2, 1, 1, 2, 4, …: no fixed sequence of lengths of runs is better by more than a logarithm."""
    power = 1
    while power - 1 < number:
        power *= 2
    return power // 2 if power - 1 == number else _luby(number - power // 2 + 1)
