"""Recompute: a training graph and a budget in, the same graph with forward operations run again instead of kept out.

Operations are pure, so that what runs again gives the same bits; those that write state never run twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from tinypeft.ir import Graph, Operation, Tensor
from tinypeft.planner import Buffer, live_buffers, lower_bound

#: how many operations in a row are run again before what they read is kept instead
DEPTHS = (0, 1, 2, 3, 5, 8, 1 << 30)
#: how many changes that help are compared at each step: few reach further, many come closer
TRIED = (1, 8)


@dataclass(frozen=True)
class RamBudget:
    """All the RAM that a firmware may take, and how much of it stack and runtime have `beside` the model; bytes."""

    total: int
    beside: int = 0


@dataclass(frozen=True)
class Recomputed:
    """`graph`, whose `peak` bytes are live at once; `again` are the operations that it runs a second time."""

    graph: Graph
    peak: int
    again: tuple[Operation, ...]

    @property
    def macs(self) -> int:
        """Multiply-accumulates that a run costs more."""
        return sum(op.op.macs(op) for op in self.again)


@dataclass(frozen=True)
class _Change:
    """Operations to insert in front of position `at`, where later ones read `replaced` instead of the keys' tensors."""

    at: int
    inserted: tuple[Operation, ...]
    replaced: dict[int, Tensor]
    cost: int
    saved: int


def recompute(graph: Graph, budget: int, schedule: Callable[[Graph], Graph]) -> Recomputed:
    """`graph` with few operations run again so that at most `budget` bytes are live at once, or as few as were found.

    `schedule` gives an order of a graph's operations that needs no more than the given one. At each step a tensor that
    lies idle at the peak is dropped behind its reader before the peak and computed again for the next one. Of what
    the ways to choose it lead to, the one that fits with the fewest multiply-accumulates is taken.
    """
    results = [_reduced(graph, budget, schedule, tried) for tried in TRIED]
    return min(results, key=lambda r: (max(r.peak, budget), r.macs, len(r.again)))


def _reduced(graph: Graph, budget: int, schedule: Callable[[Graph], Graph], tried: int) -> Recomputed:
    again: list[Operation] = []
    names = {t.name for t in graph.tensors()} | _names(graph.operations)
    while True:
        buffers = live_buffers(graph)
        peak, time = lower_bound(buffers)
        changed = _best(graph, buffers, time, budget, names, tried) if peak > budget else None
        if changed is None:
            return Recomputed(graph, peak, tuple(again))
        graph, inserted = schedule(changed[0]), changed[1]
        again += inserted
        names |= _names(inserted)


def _best(
    graph: Graph, buffers: list[Buffer], time: int, budget: int, names: set[str], tried: int
) -> tuple[Graph, tuple[Operation, ...]] | None:
    """(the graph after a change, what that inserted): the cheapest that is enough, else the cheapest per byte saved.

    The latter of the first `tried` that make the bytes live at the peaks fewer.
    """
    before = _profile(buffers)
    changes = list(_changes(graph, buffers, time, names))
    enough = [c for c in changes if before[0] - c.saved <= budget]
    for change in sorted(enough, key=lambda c: c.cost):
        candidate = _apply(graph, change)
        if _profile(live_buffers(candidate))[0] <= budget:
            return candidate, change.inserted
    helpful: list[tuple[float, list[int], Graph, tuple[Operation, ...]]] = []
    for change in sorted(changes, key=lambda c: (c.cost / c.saved, c.cost)):
        candidate = _apply(graph, change)
        after = _profile(live_buffers(candidate))
        if after < before:
            lowered = before[0] - after[0]
            helpful.append((change.cost / lowered if lowered else math.inf, after, candidate, change.inserted))
        if len(helpful) == tried:
            break
    if not helpful:
        return None
    best = min(helpful, key=lambda h: h[:2])
    return best[2], best[3]


def _profile(buffers: list[Buffer]) -> list[int]:
    """The bytes live at each operation, most first."""
    live: list[int] = [0] * (max((b.last for b in buffers), default=0) + 1)
    for buffer in buffers:
        for time in range(buffer.first, buffer.last + 1):
            live[time] += buffer.size
    return sorted(live, reverse=True)


def _changes(graph: Graph, buffers: list[Buffer], time: int, names: set[str]) -> Iterator[_Change]:
    """Every way to have one tensor, read before and after operation `time` but not by it, computed again."""
    search = _Search(graph, names)
    live = [t for b in buffers if b.first <= time <= b.last for t in b.tensors]
    for tensor in live:
        later = [i for i in search.readers.get(id(tensor), []) if i > time]
        busy = time in search.readers.get(id(tensor), []) or search.producer.get(id(tensor), time) >= time
        if busy or not later or any(tensor is t for t in graph.outputs):
            continue
        seen: set[tuple[str, ...]] = set()
        for depth in DEPTHS:
            change = search.change(tensor, later[0], time, depth)
            if change is None:
                break
            key = tuple(op.name for op in change.inserted)
            if key not in seen and change.saved > 0:
                yield change
            seen.add(key)


class _Search:
    def __init__(self, graph: Graph, names: set[str]):
        self.graph, self.names = graph, names
        self.readers: dict[int, list[int]] = {}
        self.producer: dict[int, int] = {}
        self.writers: dict[int, list[int]] = {}
        for index, op in enumerate(graph.operations):
            for tensor in {id(t): t for t in op.inputs.values()}.values():
                self.readers.setdefault(id(tensor), []).append(index)
            for tensor in op.outputs.values():
                self.producer[id(tensor)] = index
                if tensor.persistent:
                    self.writers.setdefault(id(tensor), []).append(index)

    def change(self, tensor: Tensor, at: int, time: int, depth: int) -> _Change | None:
        """Compute `tensor` again in front of `at`, and up to `depth` operations before it; None where that is wrong.

        `saved`: bytes that are live at `time` no longer.
        """
        inserted: list[Operation] = []
        replaced: dict[int, Tensor] = {}
        kept: dict[int, Tensor] = {}
        if not self._again(tensor, at, depth, inserted, replaced, kept):
            return None
        saved = tensor.nbytes - sum(t.nbytes for t in kept.values() if self._last(t) < time)
        cost = sum(op.op.macs(op) + sum(t.size for t in op.outputs.values()) for op in inserted)
        return _Change(at, tuple(inserted), replaced, cost, saved)

    def _again(
        self,
        tensor: Tensor,
        at: int,
        depth: int,
        inserted: list[Operation],
        replaced: dict[int, Tensor],
        kept: dict[int, Tensor],
    ) -> bool:
        """Append what computes `tensor` in front of `at`; False where its operation may not run there again."""
        index = self.producer.get(id(tensor))
        if index is None or not self._repeatable(index, at):
            return False
        op = self.graph.operations[index]
        for operand in op.inputs.values():
            if not operand.in_arena or operand.data is not None or id(operand) in replaced:
                continue
            available = self._last(operand) >= at
            if available or not depth or not self._again(operand, at, depth - 1, inserted, replaced, kept):
                kept[id(operand)] = operand
        taken = _names(inserted)
        outputs = {name: replace(t, name=self._unique(t.name, taken), source=-1) for name, t in op.outputs.items()}
        inputs = {name: replaced.get(id(t), t) for name, t in op.inputs.items()}
        inserted.append(op.on(self._unique(op.name, taken), inputs, outputs))
        replaced.update({id(t): outputs[name] for name, t in op.outputs.items()})
        return True

    def _repeatable(self, index: int, at: int) -> bool:
        """Whether the operation writes no state, and the state that it reads is the same in front of `at`."""
        op = self.graph.operations[index]
        if any(t.persistent for t in op.outputs.values()):
            return False
        return not any(index < w < at for t in op.inputs.values() for w in self.writers.get(id(t), ()))

    def _last(self, tensor: Tensor) -> int:
        if any(tensor is t for t in self.graph.outputs):
            return len(self.graph.operations)
        return max(self.readers.get(id(tensor), [-1]))

    def _unique(self, name: str, taken: set[str]) -> str:
        stem = name.split("_again")[0]
        candidate, number = f"{stem}_again", 2
        while candidate in self.names or candidate in taken:
            candidate, number = f"{stem}_again_{number}", number + 1
        return candidate


def _names(operations: Iterable[Operation]) -> set[str]:
    """The names of operations and of what they give."""
    return {name for op in operations for name in (op.name, *(t.name for t in op.outputs.values()))}


def _apply(graph: Graph, change: _Change) -> Graph:
    operations = [*graph.operations[: change.at], *change.inserted]
    for op in graph.operations[change.at :]:
        inputs = {name: change.replaced.get(id(t), t) for name, t in op.inputs.items()}
        operations.append(op.on(op.name, inputs, op.outputs))
    return Graph(graph.name, graph.inputs, graph.outputs, operations)
