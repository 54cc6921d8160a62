"""Live ranges, buffers that are taken over, and the lower bound."""

from __future__ import annotations

from small_models import MODELS, load

from tinypeft.adapters import AdapterConfig
from tinypeft.compiler import compile_model
from tinypeft.ir import Graph, Operation, Purpose, Tensor
from tinypeft.ops.base import KernelCall, Op
from tinypeft.planner import Buffer, live_buffers, lower_bound
from tinypeft.stages.autodiff import TrainingConfig


class Step(Op):
    """A fake operator: `inplace` operands, a view or not, scratch bytes."""

    name = "STEP"
    results = ("y",)

    def __init__(self, inplace: tuple[str, ...] = (), view: bool = False, scratch: int = 0):
        self.inplace, self.view, self.scratch = inplace, view, scratch

    def in_place(self, op: Operation) -> dict[str, tuple[str, ...]]:
        return {"y": self.inplace}

    def scratch_bytes(self, op: Operation) -> int:
        return self.scratch

    def call(self, op: Operation) -> KernelCall | None:
        return None if self.view else KernelCall("f", "", {})


def tensor(name: str, size: int = 8, purpose: Purpose = Purpose.ACTIVATION) -> Tensor:
    return Tensor(name, (size,), "int8", purpose)


def chain(*steps: tuple[Op, dict[str, Tensor], Tensor], outputs: list[Tensor], inputs: list[Tensor]) -> list[Buffer]:
    operations = [Operation(op, f"op{i}", operands, {"y": y}) for i, (op, operands, y) in enumerate(steps)]
    return live_buffers(Graph("g", inputs, outputs, operations))


def ranges(buffers: list[Buffer]) -> dict[str, tuple[int, int, int]]:
    return {b.name: (b.size, b.first, b.last) for b in buffers}


def test_a_chain() -> None:
    x, a, b, c = tensor("x", 5), tensor("a", 8), tensor("b", 9), tensor("c", 4)
    found = chain((Step(), {"x": x}, a), (Step(scratch=6), {"x": a}, b), (Step(), {"x": b}, c), inputs=[x], outputs=[c])
    expected = {"x": (8, 0, 0), "a": (8, 0, 1), "b": (12, 1, 2), "op1 scratch": (8, 1, 1), "c": (4, 2, 3)}
    assert ranges(found) == expected


def test_what_is_not_read_lives_while_it_is_written() -> None:
    x, a, b = tensor("x"), tensor("a"), tensor("b")
    found = chain((Step(), {"x": x}, a), (Step(), {"x": x}, b), inputs=[x], outputs=[b])
    assert ranges(found) == {"x": (8, 0, 1), "a": (8, 0, 0), "b": (8, 1, 2)}


def test_persistent_tensors_and_arguments_are_not_in_the_arena() -> None:
    x, weight, rate = tensor("x"), tensor("w", 4, Purpose.ADAPTER_WEIGHT), tensor("r", 1, Purpose.ARGUMENT)
    y, master = tensor("y"), tensor("m", 4, Purpose.MASTER)
    found = chain(
        (Step(), {"x": x, "w": weight, "r": rate}, y), (Step(), {"x": y}, master), inputs=[x, rate], outputs=[y]
    )
    assert set(ranges(found)) == {"x", "y"}


def test_a_result_takes_over_an_operand_on_its_last_use() -> None:
    x, a, b, c = tensor("x"), tensor("a"), tensor("b", 12), tensor("c")
    inplace = Step(inplace=("x",))
    found = chain((inplace, {"x": x}, a), (inplace, {"x": a}, b), (Step(), {"x": b}, c), inputs=[x], outputs=[c])
    assert ranges(found) == {"x": (12, 0, 2), "c": (8, 2, 3)}
    assert [t.name for t in found[0].tensors] == ["x", "a", "b"]


def test_a_result_never_takes_over_what_is_read_later() -> None:
    x, a, b, c = tensor("x"), tensor("a"), tensor("b"), tensor("c")
    inplace = Step(inplace=("x",))
    found = chain((Step(), {"x": x}, a), (inplace, {"x": a}, b), (Step(), {"x": b, "z": a}, c), inputs=[x], outputs=[c])
    assert ranges(found) == {"x": (8, 0, 0), "a": (8, 0, 2), "b": (8, 1, 2), "c": (8, 2, 3)}


def test_a_result_never_takes_over_an_output_of_the_graph() -> None:
    x, a, b = tensor("x"), tensor("a"), tensor("b")
    inplace = Step(inplace=("x",))
    found = chain((Step(), {"x": x}, a), (inplace, {"x": a}, b), inputs=[x], outputs=[a, b])
    assert ranges(found)["a"] == (8, 0, 2) and ranges(found)["b"] == (8, 1, 2)


def test_the_second_operand_is_taken_where_the_first_lives_on() -> None:
    x, a, b, c = tensor("x"), tensor("a"), tensor("b"), tensor("c")
    both = Step(inplace=("p", "q"))
    found = chain(
        (Step(), {"x": x}, a), (both, {"p": x, "q": a}, b), (Step(), {"p": b, "q": x}, c), inputs=[x], outputs=[c]
    )
    assert [t.name for t in next(f for f in found if f.name == "a").tensors] == ["a", "b"]


def test_a_view_always_shares_and_keeps_its_source_alive() -> None:
    x, a, view, c, d = tensor("x"), tensor("a"), tensor("view"), tensor("c"), tensor("d")
    found = chain(
        (Step(), {"x": x}, a),
        (Step(inplace=("x",), view=True), {"x": a}, view),
        (Step(inplace=("x",)), {"x": a}, c),  # a's last use, but its view is read below
        (Step(), {"x": c, "z": view}, d),
        inputs=[x],
        outputs=[d],
    )
    shared = next(b for b in found if b.name == "a")
    assert [t.name for t in shared.tensors] == ["a", "view"] and (shared.first, shared.last) == (0, 3)
    assert ranges(found)["c"] == (8, 2, 3)


def test_the_lower_bound_is_the_most_that_is_live() -> None:
    buffers = [Buffer("a", 8, 0, 2), Buffer("b", 16, 1, 1), Buffer("c", 12, 2, 3), Buffer("d", 4, 1, 3)]
    assert lower_bound(buffers) == (28, 1)
    assert lower_bound([]) == (0, 0)


def test_live_ranges_of_whole_models() -> None:
    """Every read lies inside the range of its buffer, and every tensor of the arena has exactly one buffer."""
    for name in MODELS:
        source = load(name)
        model = compile_model(name, source.fingerprint, source.graph, AdapterConfig(), TrainingConfig())
        for graph in model.graphs:
            owner = {id(t): b for b in live_buffers(graph) for t in b.tensors}
            assert set(owner) == {id(t) for t in graph.tensors() if t.in_arena and t.data is None}
            for time, op in enumerate(graph.operations):
                for t in [*op.inputs.values(), *op.outputs.values()]:
                    if id(t) in owner:
                        assert owner[id(t)].first <= time <= owner[id(t)].last and owner[id(t)].size >= t.nbytes
            assert all(owner[id(t)].last == len(graph.operations) for t in graph.outputs if t.in_arena)
