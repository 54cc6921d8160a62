"""Live ranges: a scheduled graph in, buffers with sizes and lifetimes out; tensors that share bytes are one buffer."""

from __future__ import annotations

from dataclasses import dataclass, field

from tinypeft.ir import Graph, Tensor
from tinypeft.planner.sharing import ALIGNMENT, aligned, share

__all__ = ["ALIGNMENT", "Buffer", "live_buffers", "lower_bound"]


@dataclass(eq=False)
class Buffer:
    """Bytes that must stay together from operation `first` to operation `last`, both included.

    `tensors` share it, in the order in which they are computed; `inner` holds, by their names, at which byte of it
    they start where that is not the first. A scratch buffer has none and names its operation.
    """

    name: str
    size: int
    first: int
    last: int
    tensors: list[Tensor] = field(default_factory=list)
    inner: dict[str, int] = field(default_factory=dict)

    def overlaps(self, other: Buffer) -> bool:
        """Whether both are live at some operation."""
        return self.first <= other.last and other.first <= self.last


def live_buffers(graph: Graph) -> list[Buffer]:
    """The buffers of `graph` in its order of operations; inputs live from the first, outputs to the last operation."""
    buffers = []
    for group in share(graph):
        start = group.start
        inner = {t.name: group.offsets[id(t)] - start for t in group.tensors if group.offsets[id(t)] > start}
        buffers.append(Buffer(group.tensors[0].name, group.size, group.first, group.last, group.tensors, inner))
    for time, op in enumerate(graph.operations):
        scratch = op.scratch_bytes
        if scratch:
            buffers.append(Buffer(f"{op.name} scratch", aligned(scratch), time, time))
    return sorted(buffers, key=lambda b: b.first)


def lower_bound(buffers: list[Buffer]) -> tuple[int, int]:
    """(bytes, operation): no arena can be smaller than the most that is live at once, and where that is."""
    change: dict[int, int] = {}
    for buffer in buffers:
        change[buffer.first] = change.get(buffer.first, 0) + buffer.size
        change[buffer.last + 1] = change.get(buffer.last + 1, 0) - buffer.size
    live = peak = peak_time = 0
    for time in sorted(change):
        live += change[time]
        if live > peak:
            peak, peak_time = live, time
    return peak, peak_time
