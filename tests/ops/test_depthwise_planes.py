"""Depthwise convolutions that compute channel by channel: which do, their bits over their input, what backends may."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import random_int8
from kernel_harness import assert_equal, compile_operations
from tflite_builder import depthwise_conv_2d, int8_tensor, int32_constant

from tinypeft.ir import Operation
from tinypeft.kernels import Kernel
from tinypeft.ops import KernelCall
from tinypeft.ops.depthwise_conv_2d import by_planes
from tinypeft.ops.overlap import window_distance
from tinypeft.ops.window import Window

PLANES = {
    "3x3": Window(25, 5, 64, 25, 5, 64, 3, 3, 1, 1, 1, 1, 1, 1),
    "3x3, taller than a block of accumulators": Window(70, 2, 90, 70, 2, 90, 3, 3, 1, 1, 1, 1, 1, 1),
    "3x3, padding at one end": Window(4, 5, 40, 4, 5, 40, 3, 3, 1, 1, 1, 1, 2, 0),
    "3x3, dilated": Window(7, 6, 40, 7, 6, 40, 3, 3, 1, 1, 2, 3, 2, 3),
    "3x3, columns left of the image are not read": Window(5, 5, 60, 5, 5, 60, 3, 3, 1, 1, 1, 1, 1, -1),
    "3x3, columns in the padding alone": Window(5, 5, 60, 5, 5, 60, 3, 3, 1, 1, 1, 1, 1, 4),
    "5x3": Window(6, 6, 64, 6, 6, 64, 5, 3, 1, 1, 1, 1, 2, 1),
    "1x7 of one row": Window(1, 9, 8, 1, 9, 8, 1, 7, 1, 1, 1, 1, 0, 3),
    "9x1 of one column": Window(40, 1, 30, 40, 1, 30, 9, 1, 1, 1, 1, 1, 4, 0),
    "1x1": Window(2, 2, 8, 2, 2, 8, 1, 1),
    "window beyond the image": Window(2, 2, 30, 2, 2, 30, 7, 7, 1, 1, 1, 1, 3, 3),
}
ROWS = {
    "a plane is more than rows reach": Window(48, 48, 8, 48, 48, 8, 3, 3, 1, 1, 1, 1, 1, 1),
    "stride": Window(6, 6, 64, 3, 3, 64, 3, 3, 2, 2, 1, 1, 0, 0),
    "depth multiplier": Window(3, 3, 64, 3, 3, 128, 3, 3, 1, 1, 1, 1, 1, 1),
    "smaller output": Window(5, 5, 64, 3, 3, 64, 3, 3),
    "rows above the window": Window(5, 5, 64, 5, 5, 64, 3, 3, 1, 1, 1, 1, -1, 1),
    "rows below the window": Window(5, 5, 64, 5, 5, 64, 3, 3, 1, 1, 1, 1, 3, 1),
}


def operation(rng: np.random.Generator, window: Window, **options: Any) -> Operation:
    """Of random weights and scales, with multipliers that go left in some channels."""
    channels, shape = window.output_c, (1, window.kernel_h, window.kernel_w, window.output_c)
    x = int8_tensor("x", window.input_shape, 0.05, int(rng.integers(-128, 128)))
    scales = (0.01 * np.exp(rng.uniform(-3, 3, channels))).astype(np.float32)
    bias = int32_constant("bias", rng.integers(-1000, 1000, channels), np.float32(0.05) * scales)
    output_scale = float(rng.choice([0.001, 0.1]))
    y = int8_tensor("y", window.output_shape, output_scale, int(rng.integers(-128, 128)))
    filters = int8_tensor("w", shape, scales, 0, rng.integers(-127, 128, shape).astype(np.int8))
    op = depthwise_conv_2d(x, filters, bias, y, strideH=1, strideW=1, depthMultiplier=1, **options).operation()
    op.attributes["window"] = window
    return op


@pytest.mark.parametrize("name", PLANES)
def test_bits_over_the_input_and_beside_it(name: str) -> None:
    rng = np.random.default_rng(len(name))
    operations = [operation(rng, PLANES[name], fusedActivationFunction=activation) for activation in (0, 1, 3)]
    for compiled in compile_operations(operations):
        op = compiled.op
        assert op.in_place == {"output": ("input",)} and op.behind == {}
        assert 0 < op.scratch_bytes <= window_distance(PLANES[name], False)
        values = {n: random_int8(rng, t.shape) if t.data is None else t.data for n, t in op.inputs.items()}
        expected = op.op.evaluate(op, values)
        assert_equal(op, compiled.run(values), expected)
        assert_equal(op, compiled.run(values, {"output": "input"}), expected)


@pytest.mark.parametrize("name", ROWS)
def test_others_compute_by_rows(name: str) -> None:
    assert not by_planes(ROWS[name])


def test_rows_lie_in_front_and_need_no_scratch() -> None:
    op = operation(np.random.default_rng(0), ROWS["a plane is more than rows reach"])
    assert op.in_place == {"output": ()} and op.behind["input"] > 0 and op.scratch_bytes == 0


def test_what_a_kernel_may_overwrite_is_what_both_may() -> None:
    rng = np.random.default_rng(0)
    planes, rows = operation(rng, PLANES["3x3"]), operation(rng, ROWS["a plane is more than rows reach"])
    call = KernelCall("f", "", {})
    for kernel, over, behind in (
        (Kernel("b", "apart", call, ()), (), False),
        (Kernel("b", "in order", call, (), in_order=True), ("input",), True),
        (Kernel("b", "in place", call, (), in_place=("input",)), ("input",), False),
    ):
        planes.kernel = rows.kernel = kernel
        assert planes.in_place == {"output": over} and planes.behind == {}
        assert rows.in_place == {"output": ()} and bool(rows.behind) == behind
