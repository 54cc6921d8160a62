"""Reductions of odd forms against LiteRT, and where the gradient of an extreme goes."""

from __future__ import annotations

import ai_edge_litert.schema_py_generated as schema
import numpy as np
import pytest
from gradients import backward
from kernel_harness import compare_kernel
from tflite_builder import Node, build_model, int8_tensor, int32_constant, run_reference

from tinypeft.ops.base import BlockFloat
from tinypeft.ops.reduction import reduction

KINDS = ("MEAN", "REDUCE_MAX", "REDUCE_MIN")


def _node(kind: str, shape: tuple[int, ...], axes: list[int], keep: bool) -> Node:
    reduced = {axis % len(shape) for axis in axes}
    out = tuple(1 if i in reduced else n for i, n in enumerate(shape) if keep or i not in reduced)
    x, y = int8_tensor("x", shape, 0.1, 3), int8_tensor("y", out, 0.1, 3)
    return Node(kind, schema.ReducerOptionsT(keepDims=keep), [x, int32_constant("axes", axes)], [y])


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((3, 4, 5, 2), [0]), ((3, 4, 5, 2), [3, 0]), ((3, 4, 5, 2), [-1, 1]), ((3, 4, 5, 2), [1, 2]),
        ((2, 3, 2, 3, 2, 3), [5, 1, 3]), ((2, 3, 2, 3, 2, 3), [0, 2, 4, 0]), ((4, 3), [0, 1]), ((5,), [-1]),
        ((1, 1, 1, 7), [1, 2]), ((1, 6, 1, 1), [2, 3]),
    ],
)  # fmt: skip
def test_any_axes_equal_litert(kind: str, shape: tuple[int, ...], axes: list[int], keep: bool) -> None:
    rng = np.random.default_rng(1)
    node = _node(kind, shape, axes, keep)
    op = node.operation()
    assert op.op.check(op) is None and op.op.shapes(op) == {"output": op.output.shape}
    for _ in range(5):
        x = rng.integers(-128, 128, shape).astype(np.int8)
        (expected,) = run_reference(build_model(node), x)
        np.testing.assert_array_equal(compare_kernel(op, {"input": x})["output"], expected)


@pytest.mark.parametrize(("kind", "extreme"), [("REDUCE_MAX", 127), ("REDUCE_MIN", -128)])
def test_the_gradient_goes_to_the_first_of_equals(kind: str, extreme: int) -> None:
    x = np.zeros((1, 3, 2, 2), np.int8)
    x[0, 1, :, 0] = extreme  # two of channel 0
    x[0, 2, 1, 1] = extreme
    d_output = BlockFloat(np.array([[5, -7]], np.int16), -3)
    gradients, steps, masked = backward(_node(kind, x.shape, [1, 2], False).operation(), {"input": x}, d_output)
    expected = np.zeros(x.shape, np.int16)
    expected[0, 1, 0, 0], expected[0, 2, 1, 1] = 5, -7
    assert not masked and gradients["input"].exponent == -3
    np.testing.assert_array_equal(gradients["input"].mantissa, expected)
    compare_kernel(*steps[0])


def test_mean_over_height_and_width_keeps_its_own_kernel() -> None:
    """As it lies in memory, (count, channels); so does a mean over time, and over everything."""
    for shape, axes in (((1, 8, 8, 4), [1, 2]), ((1, 8, 4), [1]), ((1, 8, 4), [0, 1, 2]), ((1, 1, 1, 9), [1, 2])):
        op = _node("MEAN", shape, axes, False).operation()
        assert op.op.call(op).function == "tp_mean_s8"  # type: ignore[union-attr]
    op = _node("MEAN", (1, 8, 8, 4), [3], False).operation()
    assert op.op.call(op).function == "tp_mean_axes_s8"  # type: ignore[union-attr]


def test_adjoining_axes_are_walked_as_one() -> None:
    assert reduction((1, 4, 5, 6), (1, 2)) == reduction((1, 20, 6), (1,))
    loops = reduction((2, 3, 1, 4, 5), (1, 3))
    assert loops.kept == ((2, 60), (5, 1)) and loops.reduced == ((12, 5),)
    assert loops.count == 12 and loops.results == 10 and not loops.over_rows
