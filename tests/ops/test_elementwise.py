"""Gradients of the elementwise operators against float64, broadcasts, and what is refused."""

from __future__ import annotations

from typing import Any

import ai_edge_litert.schema_py_generated as schema
import numpy as np
import pytest
from cases import CASES, random_inputs
from elementwise_reference import FORMULAS, gradients, real_operands
from gradients import backward
from kernel_harness import block_float, compare_kernel, compile_operations
from tflite_builder import Node, build_model, int8_tensor, run_reference

from tinypeft.errors import ModelError
from tinypeft.ir import Operation
from tinypeft.ops import OPS
from tinypeft.ops.activation import output_range
from tinypeft.ops.base import BlockFloat, Value
from tinypeft.ops.broadcast import make_broadcast, sum_to
from tinypeft.ops.lookup import Lookup

COUNT = 80
LEVELS = np.arange(-128, 128).astype(np.int8)


def _largest_factor(steps: list[tuple[Operation, dict[str, Value]]]) -> float:
    """The largest derivative that a backward operation can hold: its mantissas are relative to that."""
    found = [1e-30]
    for step, _ in steps:
        if step.kind == "LOOKUP_BACKWARD":
            found.append(float(np.abs(step.attributes["slopes"]).max()))
        elif step.kind in OPS:
            p = step.op.parameters(step)  # type: ignore[attr-defined]
            found.append(p["largest"] * 2.0 ** p["exponent"])
    return max(found)


@pytest.mark.parametrize("kind", FORMULAS)
def test_gradients_follow_float64(kind: str) -> None:
    rng = np.random.default_rng(3)
    compared = 0
    for number in range(COUNT):
        node = CASES[kind](rng, kind=kind)
        op = node.operation(f"op{number}")
        if op.op.check(op) is not None:
            continue
        values: dict[str, Value] = {n: t.data for n, t in op.inputs.items() if t.data is not None}
        values |= dict(zip((n for n in op.inputs if n not in values), random_inputs(rng, node), strict=True))
        d_output = block_float(rng, op.output.shape, int(rng.choice([1000, 32767])), int(rng.integers(-40, 5)))
        actual, steps, masked = backward(op, values, d_output)
        output = op.op.evaluate(op, values)["output"]
        real = d_output.to_float()
        if masked or isinstance(op.op, Lookup):
            low, high = output_range(op)
            real = np.where((output > low) & (output < high), real, 0.0)
        expected = gradients(op, real_operands(op, values), real)
        assert set(actual) == {name for name, tensor in op.inputs.items() if tensor.data is None}
        for name, gradient in actual.items():
            assert gradient.mantissa.shape == op.inputs[name].shape
            a, e = gradient.to_float().reshape(-1), expected[name].reshape(-1)
            repeated = op.output.size / op.inputs[name].size
            allowed = 1e-4 * np.abs(d_output.to_float()).max() * _largest_factor(steps) * max(repeated, 1)
            np.testing.assert_allclose(a, e, rtol=1e-3, atol=allowed, err_msg=f"{op}: {name}")
            if np.abs(e).max() > 100 * allowed:
                assert a @ e / np.sqrt((a @ a) * (e @ e)) > 0.9995, f"{op}: {name}"
                compared += 1
    assert compared > COUNT / 5  # a clamp to one unit leaves most random cases without a gradient


@pytest.mark.parametrize("kind", ["MAXIMUM", "MINIMUM"])
def test_of_equals_the_first_gets_the_gradient(kind: str) -> None:
    tensors = [int8_tensor(name, (1, 3), 0.1, 4) for name in "aby"]
    op = Node(kind, schema.MaximumMinimumOptionsT(), tensors[:2], tensors[2:]).operation()
    values = {"input1": np.array([[5, 5, 5]], np.int8), "input2": np.array([[5, 4, 6]], np.int8)}
    d_output = BlockFloat(np.array([[100, 200, 300]], np.int16), 0)
    actual, _, masked = backward(op, values, d_output)
    assert not masked
    first = [100, 200, 0] if kind == "MAXIMUM" else [100, 0, 300]
    np.testing.assert_array_equal(actual["input1"].mantissa[0], first)
    np.testing.assert_array_equal(actual["input2"].mantissa[0], np.array([100, 200, 300]) - first)


def test_an_operand_used_twice() -> None:
    """x * x and x - x: the gradients of both places add up elsewhere; the kernels may share one buffer."""
    rng = np.random.default_rng(5)
    for kind, options in (("MUL", schema.MulOptionsT()), ("SUB", schema.SubOptionsT())):
        x, y = int8_tensor("x", (1, 4, 3), 0.05, -7), int8_tensor("y", (1, 4, 3), 0.1, 3)
        node = Node(kind, options, [x, x], [y])
        values = rng.integers(-128, 128, x.shape).astype(np.int8)
        op = node.operation()
        result = compare_kernel(op, {"input1": values, "input2": values})["output"]
        np.testing.assert_array_equal(result, run_reference(build_model(node), values)[0])
        actual, _, _ = backward(op, {"input1": values, "input2": values}, block_float(rng, x.shape))
        total = actual["input1"].to_float() + actual["input2"].to_float()
        assert not total.any() if kind == "SUB" else total.any()


def test_sums_keep_the_bits_by_which_their_terms_cancel() -> None:
    """A gradient of either sign summed over many positions still fills its mantissas."""
    rng = np.random.default_rng(6)
    x, gate = int8_tensor("x", (1, 40, 40, 3), 0.05, -7), int8_tensor("g", (1, 1, 1, 3), 1 / 256, -128)
    op = Node("MUL", schema.MulOptionsT(), [x, gate], [int8_tensor("y", x.shape, 0.05, -7)]).operation()
    values = {n: rng.integers(-100, 100, t.shape).astype(np.int8) for n, t in op.inputs.items()}
    actual, steps, _ = backward(op, values, block_float(rng, x.shape))
    assert actual["input2"].peak > 1 << 13
    for step, operands in steps:
        if step.kind in OPS:
            compare_kernel(step, operands)


@pytest.mark.parametrize(
    ("a", "b", "extents"),
    [
        ((1, 6, 5, 4), (1, 6, 5, 4), (120,)),
        ((1, 6, 5, 4), (4,), (30, 4)),
        ((1, 6, 5, 4), (), (120,)),
        ((1, 6, 5, 4), (1, 6, 5, 1), (30, 4)),
        ((1, 6, 1, 4), (1, 1, 5, 1), (6, 5, 4)),
        ((2, 1, 5, 1), (1, 6, 1, 4), (2, 6, 5, 4)),
        ((1, 1), (1, 1), ()),
        ((1, 6, 5, 2, 4), (1, 1, 1, 2, 1), (30, 2, 4)),
    ],
)
def test_adjoining_dimensions_are_merged(a: tuple[int, ...], b: tuple[int, ...], extents: tuple[int, ...]) -> None:
    broadcast = make_broadcast(a, b)
    assert broadcast is not None and broadcast.extents == extents
    assert make_broadcast(b, a) is not None


def test_sum_to_undoes_a_broadcast() -> None:
    ones = np.ones((2, 3, 4), np.int16)
    np.testing.assert_array_equal(sum_to(ones, (3, 1)), np.full((3, 1), 8))
    assert sum_to(ones, ()) == 24 and sum_to(ones, (2, 3, 4)).sum() == 24


@pytest.mark.parametrize("kind", ["ADD", "MUL", "MAXIMUM"])
def test_five_dimensions_that_need_four_loops(kind: str) -> None:
    rng = np.random.default_rng(7)
    shapes = (1, 3, 2, 2, 4), (1, 1, 2, 1, 4)
    a, b = (int8_tensor(n, shape, 0.1, 3) for n, shape in zip("ab", shapes, strict=True))
    options = {"ADD": schema.AddOptionsT(), "MUL": schema.MulOptionsT(), "MAXIMUM": schema.MaximumMinimumOptionsT()}
    node = Node(kind, options[kind], [a, b], [int8_tensor("y", shapes[0], 0.1, 3)])
    values = [rng.integers(-128, 128, shape).astype(np.int8) for shape in shapes]
    result = compare_kernel(node.operation(), dict(zip(("input1", "input2"), values, strict=True)))["output"]
    np.testing.assert_array_equal(result, run_reference(build_model(node), *values)[0])


def _node(kind: str, options: Any, shapes: Any, scales: Any, zero_points: Any, data: Any = None) -> Node:
    quantised = list(zip(shapes, scales, zero_points, strict=True))
    inputs = [int8_tensor(f"x{i}", *each) for i, each in enumerate(quantised[:-1])]
    if data is not None:
        inputs[-1].data = data
    return Node(kind, options, inputs, [int8_tensor("y", *quantised[-1])])


ONE = (1, 2)
REFUSED = {
    "cannot be broadcast": _node("ADD", None, [(1, 3), (1, 2), (1, 3)], [1] * 3, [0] * 3),
    "more than 4 nested loops": _node(
        "SUB", None, [(2, 1, 2, 1, 2), (1, 2, 1, 2, 1), (2, 2, 2, 2, 2)], [1] * 3, [0] * 3
    ),
    "PReLU must be constant": _node("PRELU", None, [(1, 2), (2,), (1, 2)], [1] * 3, [0] * 3),
    "which is no part of": _node("PRELU", None, [(1, 1), (2,), (1, 2)], [1] * 3, [0] * 3, np.zeros(2, np.int8)),
}


@pytest.mark.parametrize("message", REFUSED)
def test_from_tflite_refuses(message: str) -> None:
    with pytest.raises(ModelError, match=message):
        REFUSED[message].operation()


CHECKED = {
    "ADD": (_node("ADD", None, [ONE] * 3, [1, 1, 1e-7], [0] * 3), "too small for inputs of scale 1"),
    "SUB": (_node("SUB", None, [ONE] * 3, [0.5, 1, 2.0**-19], [0] * 3), "too small for inputs of scale 1"),
    "MUL": (_node("MUL", None, [ONE] * 3, [1, 1, 1e-5], [0] * 3), "too small for inputs of scales 1 and 1"),
    "SQUARED_DIFFERENCE": (_node("SQUARED_DIFFERENCE", None, [ONE] * 3, [1, 1, 1e-4], [0] * 3), "too small"),
    "MAXIMUM": (_node("MAXIMUM", None, [ONE] * 3, [1, 2, 1], [0] * 3), "must be the same"),
    "MINIMUM": (_node("MINIMUM", None, [ONE] * 3, [1, 1, 1], [0, 0, 1]), "must be the same"),
    "PRELU": (_node("PRELU", None, [ONE, (2,), ONE], [1, 1, 1e-6], [0] * 3, np.zeros(2, np.int8)), "too small"),
    "RELU": (_node("RELU", None, [ONE] * 2, [1, 1e-8], [0] * 2), "too small for an input of scale 1"),
    "RELU6": (_node("RELU6", None, [ONE] * 2, [1e-6, 1e-9], [0] * 2), "too small for the activation RELU6"),
    "LEAKY_RELU": (
        _node("LEAKY_RELU", schema.LeakyReluOptionsT(alpha=-0.1), [ONE] * 2, [1, 1], [0] * 2), "must not be negative"
    ),
    "LOGISTIC": (_node("LOGISTIC", None, [ONE] * 2, [1, 1 / 255], [0, -128]), "1/256"),
    "HARD_SWISH": (_node("HARD_SWISH", None, [ONE] * 2, [1, 1e-3], [0] * 2), "too small"),
    "HARD_SWISH far apart": (_node("HARD_SWISH", None, [ONE] * 2, [1e-3, 1], [0] * 2), "16-bit"),
    "ELU": (_node("ELU", None, [ONE] * 2, [1, 1e-9], [0] * 2), "too small"),
    "EXP": (_node("EXP", None, [ONE] * 2, [1, 1], [0] * 2), "too small"),
    "ABS": (_node("ABS", None, [ONE] * 2, [1, 1e-9], [0] * 2), "too small"),
    "NEG": (_node("NEG", None, [ONE] * 2, [1, 1], [3, 3]), "zero points opposite"),
    "SQUARE": (_node("SQUARE", None, [ONE] * 2, [1, 1], [0] * 2), "no int8 kernel"),
    "NEG of another scale": (_node("NEG", None, [ONE] * 2, [1, 2], [3, -3]), "scales must be the same"),
    "SQRT": (_node("SQRT", None, [ONE] * 2, [1, 1e-9], [0] * 2), "too small"),
    "RSQRT small": (_node("RSQRT", None, [ONE] * 2, [1, 1e-10], [0] * 2), "too small for an inverse root"),
    "RSQRT large": (_node("RSQRT", None, [ONE] * 2, [1, 1e4], [0] * 2), "too large for an inverse root"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHECKED)
def test_check_refuses_what_litert_cannot_compute(name: str) -> None:
    node, message = CHECKED[name]
    op = node.operation()
    assert message in str(op.op.check(op))


@pytest.mark.parametrize("kind", ["RSQRT", "SQRT"])
@pytest.mark.parametrize("zero_point", [-127, -5, 0, 100, 127])
def test_roots_with_other_zero_points(kind: str, zero_point: int) -> None:
    """Where LiteRT computes, at inputs that are not negative, the results are its own; below they are constant."""
    positive = LEVELS[LEVELS >= zero_point]
    node = _node(kind, None, [positive.shape] * 2, [0.02, 0.05], [zero_point, -20])
    op = node.operation()
    assert op.op.check(op) is None
    result = compare_kernel(op, {"input": positive})["output"]
    np.testing.assert_array_equal(result, run_reference(build_model(node), positive)[0])
    table = op.op.table(op)  # type: ignore[attr-defined]
    assert set(table[LEVELS < zero_point]) == ({127} if kind == "RSQRT" else {-20})


@pytest.mark.parametrize("kind", [kind for kind in FORMULAS if isinstance(OPS[kind], Lookup)])
def test_whole_tables(kind: str) -> None:
    """Every level at many scales: the table is LiteRT's, the slopes are finite."""
    rng = np.random.default_rng(8)
    for _ in range(20):
        node = CASES[kind](rng, kind=kind)
        for tensor in (*node.inputs, *node.outputs):
            assert tensor is not None
            tensor.shape = LEVELS.shape
        op = node.operation()
        if op.op.check(op) is None:
            (expected,) = run_reference(build_model(node), LEVELS, kind=kind)
            np.testing.assert_array_equal(op.op.evaluate(op, {"input": LEVELS})["output"], expected, f"{node}")
            assert np.isfinite(op.op.slopes(op)).all()  # type: ignore[attr-defined]


def test_no_slope_at_all() -> None:
    """An operator whose every result is clamped passes no gradient, and its kernel divides by nothing."""
    op = _node("RELU", None, [(1, 4)] * 2, [0.1, 0.1], [0, 127]).operation()
    values = {"input": np.array([[-128, -1, 0, 127]], np.int8)}
    actual, steps, _ = backward(op, values, BlockFloat(np.array([[5, 6, 7, 8]], np.int16), -3))
    assert actual["input"].peak == 0
    compare_kernel(compile_operations([steps[0][0]])[0], steps[0][1])
