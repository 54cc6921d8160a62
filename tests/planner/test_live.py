"""Live ranges, buffers that are taken over, and the lower bound."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_models import MODELS, load

from tinypeft.adapters import AdapterConfig
from tinypeft.compiler import compile_model
from tinypeft.frontend import load_tflite
from tinypeft.ir import Graph, Operation, Purpose, Tensor
from tinypeft.ops.base import KernelCall, Op
from tinypeft.planner import Buffer, live_buffers, lower_bound
from tinypeft.stages.autodiff import TrainingConfig


class Step(Op):
    """A fake operator: operands it may take over, a part that it is, pieces, distances and scratch bytes."""

    name = "STEP"
    results = ("y",)

    def __init__(
        self,
        inplace: tuple[str, ...] = (),
        scratch: int = 0,
        part: tuple[str, int] | None = None,
        pieces: dict[str, int] | None = None,
        distance: dict[str, int] | None = None,
    ):
        self.inplace, self.scratch = inplace, scratch
        self.part, self.pieces, self.distance = part, pieces or {}, distance or {}

    def in_place(self, op: Operation) -> dict[str, tuple[str, ...]]:
        return {"y": self.inplace}

    def view(self, op: Operation) -> tuple[str, int] | None:
        return self.part

    def inside(self, op: Operation) -> dict[str, int]:
        return self.pieces

    def behind(self, op: Operation) -> dict[str, int]:
        return self.distance

    def scratch_bytes(self, op: Operation) -> int:
        return self.scratch

    def call(self, op: Operation) -> KernelCall | None:
        return KernelCall("f", "", {})


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
        (Step(part=("x", 0)), {"x": a}, view),
        (Step(inplace=("x",)), {"x": a}, c),  # a's last use, but its view is read below
        (Step(), {"x": c, "z": view}, d),
        inputs=[x],
        outputs=[d],
    )
    shared = next(b for b in found if b.name == "a")
    assert [t.name for t in shared.tensors] == ["a", "view"] and (shared.first, shared.last) == (0, 3)
    assert ranges(found)["c"] == (8, 2, 3)


def places(buffers: list[Buffer]) -> dict[str, tuple[str, int]]:
    """Tensor -> (the buffer it lies in, at which byte)."""
    return {t.name: (b.name, b.inner.get(t.name, 0)) for b in buffers for t in b.tensors}


def test_views_lie_at_their_offset_and_chains_of_them_add_up() -> None:
    x, a, part, inner, c = tensor("x"), tensor("a", 24), tensor("part", 12), tensor("inner", 4), tensor("c", 24)
    found = chain(
        (Step(), {"x": x}, a),
        (Step(part=("x", 8)), {"x": a}, part),
        (Step(part=("x", 4)), {"x": part}, inner),
        (Step(), {"x": x}, c),
        (Step(), {"x": inner, "z": c}, tensor("d")),
        inputs=[x],
        outputs=[c],
    )
    assert places(found)["part"] == ("a", 8) and places(found)["inner"] == ("a", 12)
    assert ranges(found)["a"] == (24, 0, 4), "as long as the last view"


def test_two_parts_are_each_taken_over_in_their_place() -> None:
    """The whole is read no more, so that results may lie where its parts were, but never over one still read."""
    x, a, left, right = tensor("x"), tensor("a", 16), tensor("left"), tensor("right")
    b, c, d = tensor("b"), tensor("c", 12), tensor("d")
    over = Step(inplace=("x",))
    found = chain(
        (Step(), {"x": x}, a),
        (Step(part=("x", 0)), {"x": a}, left),
        (Step(part=("x", 8)), {"x": a}, right),
        (over, {"x": right}, b),
        (over, {"x": left}, c),  # too large for its place while b lies behind it
        (Step(), {"x": b, "z": c}, d),
        inputs=[x],
        outputs=[d],
    )
    assert places(found)["b"] == ("a", 8)
    assert places(found)["c"] == ("c", 0)


def concatenation(*pieces: tuple[str, int]) -> Step:
    return Step(pieces=dict(pieces))


def test_pieces_are_computed_inside_their_concatenation() -> None:
    x, a, b, y, z = tensor("x"), tensor("a", 5), tensor("b", 7), tensor("y", 12), tensor("z")
    found = chain(
        (Step(), {"x": x}, a),
        (Step(), {"x": x}, b),
        (concatenation(("p", 0), ("q", 5)), {"p": a, "q": b}, y),
        (Step(), {"x": y}, z),
        inputs=[x],
        outputs=[z],
    )
    assert places(found)["b"][1] - places(found)["a"][1] == 5
    assert places(found)["a"] == places(found)["y"]
    assert ranges(found)["a"] == (12, 0, 3)


def test_pieces_are_copied_where_the_whole_would_be_in_the_way() -> None:
    """While the small piece waits, a large tensor is live: the concatenation's buffer would be too much then."""
    x, a, large, b, y = tensor("x", 4), tensor("a", 4), tensor("large", 200), tensor("b", 60), tensor("y", 64)
    c = tensor("c", 12)
    found = chain(
        (Step(), {"x": x}, a),
        (Step(), {"x": x}, large),
        (Step(), {"x": large}, c),
        (Step(), {"x": c}, b),
        (concatenation(("p", 0), ("q", 4)), {"p": a, "q": b}, y),
        inputs=[x],
        outputs=[y],
    )
    assert places(found)["a"][0] != places(found)["y"][0]
    assert places(found)["b"][0] == places(found)["y"][0], "what costs nothing saves a copy"
    assert lower_bound(found)[0] == 216, "a, large and c; with a inside, the whole of y would lie beside large"


def test_concatenations_in_concatenations() -> None:
    x, a, b, c, y, z = (tensor(n, s) for n, s in zip("xabcyz", (4, 8, 8, 16, 16, 32), strict=True))
    found = chain(
        (Step(), {"x": x}, a),
        (Step(), {"x": x}, b),
        (concatenation(("p", 0), ("q", 8)), {"p": a, "q": b}, y),
        (Step(), {"x": x}, c),
        (concatenation(("p", 0), ("q", 16)), {"p": c, "q": y}, z),
        inputs=[x],
        outputs=[z],
    )
    where = places(found)
    assert len({where[n][0] for n in "abcyz"}) == 1
    assert [where[n][1] for n in "cyabz"] == [0, 16, 16, 24, 0]


def test_a_piece_of_two_concatenations_lies_in_one() -> None:
    x, a, b, c, y, z = (tensor(n, s) for n, s in zip("xabcyz", (4, 8, 8, 8, 16, 16), strict=True))
    found = chain(
        (Step(), {"x": x}, a),
        (Step(), {"x": x}, b),
        (Step(), {"x": x}, c),
        (concatenation(("p", 0), ("q", 8)), {"p": a, "q": b}, y),
        (concatenation(("p", 0), ("q", 8)), {"p": a, "q": c}, z),
        inputs=[x],
        outputs=[y, z],
    )
    where = places(found)
    assert where["y"][0] != where["z"][0] and where["a"][0] in (where["y"][0], where["z"][0])


def test_a_piece_whose_place_another_tensor_needs_is_copied() -> None:
    """a is written over in place before the concatenation of what came after it is made: it has no place there."""
    x, a, b, y = tensor("x", 4), tensor("a"), tensor("b"), tensor("y", 16)
    found = chain(
        (Step(), {"x": x}, a),
        (Step(inplace=("x",)), {"x": a}, b),
        (concatenation(("p", 0), ("q", 8)), {"p": b, "q": b}, y),
        inputs=[x],
        outputs=[y],
    )
    assert sum(places(found)["b"][0] == b.name for b in found) == 1
    assert places(found)["a"] == places(found)["b"]


def test_the_input_stays_at_the_start_of_its_buffer() -> None:
    x, a, y = tensor("x"), tensor("a"), tensor("y", 16)
    first = chain(
        (Step(), {"x": x}, a), (concatenation(("p", 0), ("q", 8)), {"p": x, "q": a}, y), inputs=[x], outputs=[y]
    )
    assert places(first)["x"] == ("x", 0)
    second = chain(
        (Step(), {"x": x}, a), (concatenation(("p", 0), ("q", 8)), {"p": a, "q": x}, y), inputs=[x], outputs=[y]
    )
    assert places(second)["x"] == ("x", 0) and places(second)["y"] == ("a", 0)


def test_elements_stay_aligned() -> None:
    x, y = tensor("x", 4), Tensor("y", (5,), "bfp16", Purpose.GRADIENT)
    a, b = Tensor("a", (2,), "bfp16", Purpose.GRADIENT), tensor("b", 3)
    found = chain(
        (Step(), {"x": x}, b),
        (Step(), {"x": x}, a),
        (concatenation(("p", 0), ("q", 3)), {"p": b, "q": a}, y),
        inputs=[x],
        outputs=[y],
    )
    assert all(b.inner.get(t.name, 0) % 2 == 0 for b in found for t in b.tensors if t.dtype == "bfp16")


def test_both_operands_being_one_tensor_is_in_place_only_where_both_may_be() -> None:
    for takers, shared in ((("p",), False), (("p", "q"), True)):
        x, a, b = tensor("x"), tensor("a"), tensor("b")
        found = chain((Step(), {"x": x}, a), (Step(inplace=takers), {"p": a, "q": a}, b), inputs=[x], outputs=[b])
        assert (places(found)["a"][0] == places(found)["b"][0]) == shared


def test_one_operand_is_taken_over_by_one_result() -> None:
    class Two(Step):
        results = ("y", "z")

        def in_place(self, op: Operation) -> dict[str, tuple[str, ...]]:
            return {"y": ("x",), "z": ("x",)}

    x, a, y, z = tensor("x"), tensor("a"), tensor("y"), tensor("z")
    operations = [Operation(Step(), "op0", {"x": x}, {"y": a}), Operation(Two(), "op1", {"x": a}, {"y": y, "z": z})]
    where = places(live_buffers(Graph("g", [x], [y, z], operations)))
    assert where["y"] == where["a"] != where["z"]


def test_results_are_written_over_their_operand_from_in_front() -> None:
    x, a, b, y = tensor("x", 4), tensor("a", 40), tensor("b", 40), tensor("y", 4)
    over = Step(distance={"x": 8})
    found = chain((Step(), {"x": x}, a), (over, {"x": a}, b), (Step(), {"x": b}, y), inputs=[x], outputs=[y])
    assert places(found)["a"] == ("a", 8) and places(found)["b"] == ("a", 0)
    assert ranges(found)["a"] == (48, 0, 2)


def test_nothing_is_overlapped_that_is_read_later_or_gains_nothing() -> None:
    x, a, b, y = tensor("x", 4), tensor("a", 40), tensor("b", 40), tensor("y", 4)
    later = (Step(), {"x": b, "z": a}, y)
    found = chain((Step(), {"x": x}, a), (Step(distance={"x": 8}), {"x": a}, b), later, inputs=[x], outputs=[y])
    assert places(found)["a"][0] != places(found)["b"][0]
    last = (Step(), {"x": b}, y)
    found = chain((Step(), {"x": x}, a), (Step(distance={"x": 40}), {"x": a}, b), last, inputs=[x], outputs=[y])
    assert places(found)["a"][0] != places(found)["b"][0]


@pytest.mark.parametrize(
    ("name", "limit"),
    [("kws_ref_model", 16_384), ("vww_96_int8", 55_296), ("pretrainedResnet_quant", 49_152), ("ad01_int8", 819)],
)
def test_what_inference_of_known_models_needs(shared_data: Path, name: str, limit: int) -> None:
    source = load_tflite(name, (shared_data / "models" / f"{name}.tflite").read_bytes(), {})
    assert lower_bound(live_buffers(source.graph))[0] <= limit


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
