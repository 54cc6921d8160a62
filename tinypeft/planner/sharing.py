"""Which tensors share bytes: groups that keep their distances, grown one link at a time and checked pair by pair."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tinypeft.ir import DTYPES, Graph, Operation, Tensor
from tinypeft.planner.content import Contents, pieces_of, view_of

ALIGNMENT = 4
#: of the results written over their operands, how many in a row are tried together
RUN_LENGTHS = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Link:
    """`tensor` would start `distance` bytes behind `base`; `time` is the operation that it helps."""

    base: Tensor
    tensor: Tensor
    distance: int
    time: int


@dataclass(eq=False)
class Group:
    """Tensors at fixed distances, live together from operation `first` to `last`; `offsets` may be below 0."""

    tensors: list[Tensor]
    offsets: dict[int, int]
    first: int
    last: int

    @property
    def start(self) -> int:
        """The lowest offset, at which its buffer starts."""
        return min(self.offsets.values())

    @property
    def size(self) -> int:
        """Bytes of its buffer, a multiple of ALIGNMENT."""
        return aligned(max(self.offsets[id(t)] + t.nbytes for t in self.tensors) - self.start)


def share(graph: Graph) -> list[Group]:
    """The groups of `graph`, by their first tensor's order; a tensor alone is a group of its own.

    Views share with their operand. Results in place, pieces inside a concatenation and results written over their
    operand from in front of it share where that is sound and makes the most that is live at once smaller, or with the
    same peak what comes behind it.
    """
    sharing = _Sharing(graph)
    sharing.link_views()
    in_place = list(sharing.in_place_links())
    whole = list(sharing.inside_links())
    joined = [*whole, *([link] for links in whole for link in links)]
    for link in in_place:
        sharing.take([link], only_if_smaller=sharing.grows(link))
    sharing.lower_peaks([*joined, *sharing.behind_links()])
    for links in [*joined, *([link] for link in in_place)]:
        sharing.take(links, only_if_smaller=True)
    return sharing.groups()


class _Sharing:
    def __init__(self, graph: Graph):
        self.graph = graph
        self.contents = Contents(graph)
        self.first: dict[int, int] = {}
        self.last = {id(t): time for time, op in enumerate(graph.operations) for t in op.inputs.values()}
        self.last |= {id(t): len(graph.operations) for t in graph.outputs}
        self.anchored = {id(t) for t in graph.inputs}
        self.group: dict[int, Group] = {}
        self.scratch = np.zeros(len(graph.operations) + 1, np.int64)
        for tensor in graph.inputs:
            self._add(tensor, 0)
        for time, op in enumerate(graph.operations):
            self.scratch[time] = aligned(op.scratch_bytes)
            for tensor in op.outputs.values():
                self._add(tensor, time)
        self.live = self.scratch.copy()
        for group in self.group.values():
            self.live[group.first : group.last + 1] += group.size

    def _add(self, tensor: Tensor, time: int) -> None:
        if not tensor.in_arena:
            return
        self.first[id(tensor)] = time
        self.last[id(tensor)] = max(self.last.get(id(tensor), time), time)
        self.group[id(tensor)] = Group([tensor], {id(tensor): 0}, time, self.last[id(tensor)])

    def groups(self) -> list[Group]:
        return list({id(group): group for group in self.group.values()}.values())

    def link_views(self) -> None:
        for time, op in enumerate(self.graph.operations):
            view = view_of(op)
            if view is not None:
                merged = self._merged(Link(view[0], op.output, view[1], time))
                assert merged is not None, f"{op.name} is a view that cannot lie in its operand"
                self._replace(merged)

    def in_place_links(self) -> Iterator[Link]:
        for time, op in enumerate(self.graph.operations):
            for output, operands in op.in_place.items():
                for operand in operands:
                    if op.inputs[operand].in_arena and op.outputs[output].in_arena:
                        yield Link(op.inputs[operand], op.outputs[output], 0, time)

    def inside_links(self) -> Iterator[list[Link]]:
        for time, op in enumerate(self.graph.operations):
            links = [Link(op.output, piece, offset, time) for piece, offset in pieces_of(op)]
            if links:
                yield links

    def behind_links(self) -> Iterator[list[Link]]:
        """Runs of one link or more in which each result, or what is in its place, is the next one's operand.

        Each link saves something.
        """
        runs: list[list[Link]] = []
        for time, op in enumerate(self.graph.operations):
            for operand, distance in op.behind.items():
                x, y = op.inputs[operand], op.output
                saves = max(y.nbytes, distance + x.nbytes) < x.nbytes + y.nbytes
                if x.in_arena and y.in_arena and self.last[id(x)] == time and saves:
                    run = next((run for run in runs if self.group[id(run[-1].base)] is self.group[id(x)]), None)
                    if run is None:
                        runs.append(run := [])
                    run.append(Link(y, x, distance, time))
        for run in runs:
            lengths = [n for n in RUN_LENGTHS if n < len(run)] + [len(run)]
            yield from (run[i : i + n] for n in lengths for i in range(len(run) - n + 1))

    def grows(self, link: Link) -> bool:
        """Whether the result is larger than the buffer that it would take over."""
        group = self.group[id(link.base)]
        return aligned(link.tensor.nbytes) > group.size - (group.offsets[id(link.base)] - group.start)

    def take(self, links: list[Link], *, only_if_smaller: bool) -> bool:
        """Apply all of `links` that are sound, if what is live gets smaller by it or need not; whether it did."""
        before, live = dict(self.group), self.live.copy()
        done = False
        for link in links:
            merged = self._merged(link)
            if merged is not None:
                self._replace(merged)
                done = True
        if done and (not only_if_smaller or _smaller(self.live, live)):
            return True
        self.group, self.live = before, live
        return False

    def lower_peaks(self, candidates: list[list[Link]]) -> None:
        """Take the best candidate that concerns a peak until none makes it smaller."""
        remaining = list(candidates)
        while remaining:
            peaks = np.flatnonzero(self.live == self.live.max())
            best: tuple[np.ndarray, list[Link]] | None = None
            before, live = dict(self.group), self.live.copy()
            for links in remaining:
                if not any(self._live_at(link, peaks) for link in links):
                    continue
                if self.take(links, only_if_smaller=True):
                    if best is None or _smaller(self.live, best[0]):
                        best = self.live, links
                    self.group, self.live = dict(before), live.copy()
            if best is None:
                return
            self.take(best[1], only_if_smaller=True)
            remaining.remove(best[1])

    def _live_at(self, link: Link, times: np.ndarray) -> bool:
        """Whether both ends of the link are live at one of `times`, so that it could help there."""
        a, b = self.group[id(link.base)], self.group[id(link.tensor)]
        return bool(((times >= max(a.first, b.first)) & (times <= min(a.last, b.last))).any())

    def _replace(self, merged: Group) -> None:
        for old in {id(g): g for g in (self.group[id(t)] for t in merged.tensors)}.values():
            self.live[old.first : old.last + 1] -= old.size
        self.live[merged.first : merged.last + 1] += merged.size
        for tensor in merged.tensors:
            self.group[id(tensor)] = merged

    def _merged(self, link: Link) -> Group | None:
        """The groups of both ends as one; None where that is unsound, or they are one already."""
        a, b = self.group[id(link.base)], self.group[id(link.tensor)]
        if a is b:
            return None
        shift = a.offsets[id(link.base)] + link.distance - b.offsets[id(link.tensor)]
        offsets = a.offsets | {key: offset + shift for key, offset in b.offsets.items()}
        for t in a.tensors:
            for u in b.tensors:
                start, other = offsets[id(t)], offsets[id(u)]
                if start < other + u.nbytes and other < start + t.nbytes and not self._sound(t, start, u, other):
                    return None
        tensors = sorted((*a.tensors, *b.tensors), key=lambda t: (self.first[id(t)], id(t) not in self.anchored))
        merged = Group(tensors, offsets, min(a.first, b.first), max(a.last, b.last))
        return merged if self._placeable(merged) else None

    def _placeable(self, group: Group) -> bool:
        """Whether every element is aligned, and a graph's input lies at the start, where the caller writes it."""
        start = group.start
        for tensor in group.tensors:
            inner = group.offsets[id(tensor)] - start
            if inner % np.dtype(DTYPES[tensor.dtype]).itemsize or (inner and id(tensor) in self.anchored):
                return False
        return True

    def _sound(self, a: Tensor, a_offset: int, b: Tensor, b_offset: int) -> bool:
        """Whether two tensors may cover common bytes at these offsets."""
        if self.last[id(a)] < self.first[id(b)] or self.last[id(b)] < self.first[id(a)]:
            return True
        if self.contents.agree(a, a_offset, b, b_offset):
            return True
        return self._handed_over(a, a_offset, b, b_offset) or self._handed_over(b, b_offset, a, a_offset)

    def _handed_over(self, x: Tensor, x_offset: int, y: Tensor, y_offset: int) -> bool:
        """Whether the operation that computes `y` is the last reader of `x` and may overwrite it from there."""
        time = self.first[id(y)]
        if id(y) in self.anchored or self.last[id(x)] != time or time >= len(self.graph.operations):
            return False
        return _may_overwrite(self.graph.operations[time], x, y, x_offset - y_offset)


def _may_overwrite(op: Operation, x: Tensor, y: Tensor, distance: int) -> bool:
    """Whether `op` stays right where its result `y` lies `distance` bytes in front of `x`, for each operand `x` is."""
    output = next((name for name, t in op.outputs.items() if t is y), None)
    operands = [name for name, t in op.inputs.items() if t is x]
    if output is None or not operands:
        return False
    takers = op.in_place.get(output, ())
    behind = op.behind if y is op.output else {}
    return all((distance == 0 and name in takers) or (name in behind and distance >= behind[name]) for name in operands)


def _smaller(live: np.ndarray, other: np.ndarray) -> bool:
    """Whether the sorted bytes live at each operation are smaller, the peak first."""
    a, b = np.sort(live)[::-1], np.sort(other)[::-1]
    differing = np.flatnonzero(a != b)
    return bool(len(differing)) and bool(a[differing[0]] < b[differing[0]])


def aligned(size: int) -> int:
    """`size` rounded up to a multiple of ALIGNMENT."""
    return (size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
