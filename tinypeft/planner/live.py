"""Live ranges: a scheduled graph in, buffers with sizes and lifetimes out; results in place share a buffer."""

from __future__ import annotations

from dataclasses import dataclass, field

from tinypeft.ir import Graph, Operation, Tensor

ALIGNMENT = 4


@dataclass(eq=False)
class Buffer:
    """Bytes that must stay together from operation `first` to operation `last`, both included.

    `tensors` share it one after the other; a scratch buffer has none and names its operation.
    """

    name: str
    size: int
    first: int
    last: int
    tensors: list[Tensor] = field(default_factory=list)

    def overlaps(self, other: Buffer) -> bool:
        """Whether both are live at some operation."""
        return self.first <= other.last and other.first <= self.last


def live_buffers(graph: Graph) -> list[Buffer]:
    """The buffers of `graph` in its order of operations; inputs live from the first, outputs to the last operation."""
    last_use = _last_uses(graph)
    buffers: list[Buffer] = []
    owner: dict[int, Buffer] = {}

    def add(tensor: Tensor, time: int) -> None:
        last = max(last_use.get(id(tensor), time), time)
        owner[id(tensor)] = Buffer(tensor.name, _aligned(tensor.nbytes), time, last, [tensor])
        buffers.append(owner[id(tensor)])

    for tensor in graph.inputs:
        if tensor.in_arena:
            add(tensor, 0)
    for time, op in enumerate(graph.operations):
        for name, tensor in op.outputs.items():
            if not tensor.in_arena:
                continue
            shared = _in_place_buffer(op, name, owner, time)
            if shared is None:
                add(tensor, time)
                continue
            shared.tensors.append(tensor)
            shared.size = max(shared.size, _aligned(tensor.nbytes))
            shared.last = max(shared.last, last_use.get(id(tensor), time))
            owner[id(tensor)] = shared
        scratch = op.op.scratch_bytes(op)
        if scratch:
            buffers.append(Buffer(f"{op.name} scratch", _aligned(scratch), time, time))
    return buffers


def _last_uses(graph: Graph) -> dict[int, int]:
    last = {id(t): time for time, op in enumerate(graph.operations) for t in op.inputs.values()}
    return last | {id(t): len(graph.operations) for t in graph.outputs}


def _in_place_buffer(op: Operation, output: str, owner: dict[int, Buffer], time: int) -> Buffer | None:
    """The buffer that the output may take over: an operand's that dies here, or any operand's where it is a view."""
    view = op.op.call(op) is None
    for operand in op.op.in_place(op).get(output, ()):
        buffer = owner.get(id(op.inputs.get(operand)))
        if buffer is not None and (view or buffer.last == time):
            return buffer
    return None


def lower_bound(buffers: list[Buffer]) -> tuple[int, int]:
    """(bytes, operation): no arena can be smaller than the most that is live at once, and where that is."""
    end = max((b.last for b in buffers), default=0)
    live = [0] * (end + 1)
    for buffer in buffers:
        for time in range(buffer.first, buffer.last + 1):
            live[time] += buffer.size
    peak = max(live, default=0)
    return peak, live.index(peak)


def _aligned(size: int) -> int:
    return (size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
