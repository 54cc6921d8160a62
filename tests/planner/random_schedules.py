"""Random graphs of fake operators: branches, views, pieces, results in place or written over their operand, state."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import strategies as st

from tinypeft.ir import Graph, Operation, Purpose, Tensor
from tinypeft.ops.base import KernelCall, Op
from tinypeft.planner.order_model import dependencies


class Fake(Op):
    """An operator of any operands and one result; what it may share is given."""

    name = "FAKE"
    results = ("y",)

    def __init__(self, shares: str = "", amount: int = 0, scratch: int = 0):
        self.shares, self.amount, self.scratch = shares, amount, scratch

    def in_place(self, op: Operation) -> dict[str, tuple[str, ...]]:
        return {"y": tuple(op.inputs)} if self.shares == "in place" else {}

    def behind(self, op: Operation) -> dict[str, int]:
        return {next(iter(op.inputs)): self.amount} if self.shares == "behind" else {}

    def view(self, op: Operation) -> tuple[str, int] | None:
        return (next(iter(op.inputs)), self.amount) if self.shares == "view" else None

    def inside(self, op: Operation) -> dict[str, int]:
        if self.shares != "inside":
            return {}
        starts, start = {}, 0
        for name, tensor in op.inputs.items():
            starts[name] = start
            start += tensor.nbytes
        return {n: s for n, s in starts.items() if sum(t is op.inputs[n] for t in op.inputs.values()) == 1}

    def scratch_bytes(self, op: Operation) -> int:
        return self.scratch

    def call(self, op: Operation) -> KernelCall | None:
        return KernelCall("f", "", {})


@st.composite
def graphs(draw: st.DrawFn, most: int, shares: tuple[str, ...] = ("",)) -> Graph:
    """Up to `most` operations; what is read by none is an output now and then, the last result always."""
    tensors = [Tensor("x", (draw(st.integers(1, 30)),), "int8", Purpose.ACTIVATION)]
    state = Tensor("state", (4,), "int8", Purpose.MASTER)
    operations: list[Operation] = []
    for number in range(draw(st.integers(2, most))):
        kind = draw(st.sampled_from(shares))
        count = 1 if kind in ("view", "behind") else draw(st.integers(1, 3))
        chosen = [tensors[draw(st.integers(0, len(tensors) - 1))] for _ in range(count)]
        inputs = {f"i{n}": t for n, t in enumerate(chosen)}
        size, amount = draw(st.integers(1, 40)), draw(st.integers(0, 3)) * 4
        if kind == "in place":
            size = min(size, min(t.nbytes for t in chosen))
        elif kind == "inside":
            size = sum(t.nbytes for t in chosen)
        elif kind == "view":
            amount = draw(st.integers(0, chosen[0].nbytes - 1))
            size = draw(st.integers(1, chosen[0].nbytes - amount))
        if draw(st.integers(0, 7)) == 0:
            inputs["state"] = state
        writes = kind == "" and draw(st.integers(0, 9)) == 0
        result = state if writes else Tensor(f"t{number}", (size,), "int8", Purpose.ACTIVATION)
        scratch = draw(st.sampled_from((0, 0, 0, 12)))
        operations.append(Operation(Fake(kind, amount, scratch), f"op{number}", inputs, {"y": result}))
        if not writes:
            tensors.append(result)
    read = {id(t) for op in operations for t in op.inputs.values()}
    outputs = [t for t in tensors[1:] if id(t) not in read and draw(st.booleans())]
    return Graph("g", tensors[:1], outputs or tensors[-1:], operations)


def orders(graph: Graph) -> Iterator[Graph]:
    """Every order of the operations that is allowed."""
    before = dependencies(graph)

    def extend(order: list[int]) -> Iterator[list[int]]:
        if len(order) == len(before):
            yield order
        for index in range(len(before)):
            if index not in order and before[index] <= set(order):
                yield from extend([*order, index])

    for order in extend([]):
        yield Graph(graph.name, graph.inputs, graph.outputs, [graph.operations[i] for i in order])
