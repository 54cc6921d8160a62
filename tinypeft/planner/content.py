"""Which bytes of tensors are the same by what operations mean: views and concatenations make none of their own."""

from __future__ import annotations

from dataclasses import dataclass

from tinypeft.errors import VerifyError
from tinypeft.ir import Graph, Operation, Tensor


@dataclass(frozen=True)
class Segment:
    """`size` bytes at `start` of a tensor, equal to those at `source_start` of `source`, which computes them."""

    start: int
    size: int
    source: Tensor
    source_start: int


class Contents:
    """For every arena tensor of a graph the segments that it is made of, in order and without a gap."""

    def __init__(self, graph: Graph):
        self._segments: dict[int, list[Segment]] = {}
        for tensor in graph.inputs:
            if tensor.in_arena:
                self._segments[id(tensor)] = [Segment(0, tensor.nbytes, tensor, 0)]
        for op in graph.operations:
            view, pieces = view_of(op), pieces_of(op)
            for tensor in op.outputs.values():
                if not tensor.in_arena:
                    continue
                if tensor is op.output and view is not None:
                    self._segments[id(tensor)] = self.part(view[0], view[1], tensor.nbytes)
                elif tensor is op.output and pieces:
                    self._segments[id(tensor)] = self._joined(tensor, pieces)
                else:
                    self._segments[id(tensor)] = [Segment(0, tensor.nbytes, tensor, 0)]

    def __getitem__(self, tensor: Tensor) -> list[Segment]:
        """The segments of an arena tensor."""
        return self._segments[id(tensor)]

    def part(self, tensor: Tensor, start: int, size: int) -> list[Segment]:
        """The segments of `size` bytes of `tensor` from `start`, as if these were a tensor."""
        found = []
        for s in self[tensor]:
            low, high = max(s.start, start), min(s.start + s.size, start + size)
            if low < high:
                found.append(Segment(low - start, high - low, s.source, s.source_start + low - s.start))
        return found

    def agree(self, a: Tensor, a_offset: int, b: Tensor, b_offset: int) -> bool:
        """Whether `a` at one offset and `b` at another hold the same in all bytes that both cover."""
        low, high = max(a_offset, b_offset), min(a_offset + a.nbytes, b_offset + b.nbytes)
        first, second = self.part(a, low - a_offset, high - low), self.part(b, low - b_offset, high - low)
        for s in first:
            for t in second:
                overlap = s.start < t.start + t.size and t.start < s.start + s.size
                if overlap and (s.source is not t.source or s.source_start - s.start != t.source_start - t.start):
                    return False
        return True

    def _joined(self, tensor: Tensor, pieces: list[tuple[Tensor, int]]) -> list[Segment]:
        found: list[Segment] = []
        end = 0
        for piece, offset in sorted(pieces, key=lambda p: p[1]):
            if offset > end:
                found.append(Segment(end, offset - end, tensor, end))
            found += [Segment(offset + s.start, s.size, s.source, s.source_start) for s in self[piece]]
            end = offset + piece.nbytes
        if end < tensor.nbytes:
            found.append(Segment(end, tensor.nbytes - end, tensor, end))
        return found


def view_of(op: Operation) -> tuple[Tensor, int] | None:
    """(operand, byte offset) where the first output is nothing but these bytes of that operand."""
    view = op.op.view(op)
    if view is None:
        return None
    source = op.inputs[view[0]]
    if not source.in_arena:
        raise VerifyError(f"plan: {op.name} is a view of {source.name}, which does not lie in the arena")
    return source, view[1]


def runs(op: Operation) -> bool:
    """Whether anything has to be computed or copied for `op`, where tensors lie as `live_buffers` has them."""
    return op.op.view(op) is None


def pieces_of(op: Operation) -> list[tuple[Tensor, int]]:
    """(operand, byte offset in the first output) of the operands that may be computed there."""
    return [(op.inputs[name], offset) for name, offset in op.op.inside(op).items() if op.inputs[name].in_arena]
