"""Layers with weights: `evaluate` against LiteRT's reference kernels to the bit, and what `check` refuses."""

from __future__ import annotations

import numpy as np
import pytest
from cases import random_int8
from kernel_harness import assert_equal, compare_kernel, compile_operations
from tflite_builder import (
    Node,
    build_model,
    conv_2d,
    depthwise_conv_2d,
    fully_connected,
    int8_tensor,
    int32_constant,
    run_reference,
    transpose_conv,
)
from weighted_cases import WEIGHTED_CASES, constants

from tinypeft.arithmetic import F32
from tinypeft.ops.weighted import ACCUMULATOR_LIMIT, accumulator_bound, multipliers

COUNT = 400


@pytest.mark.parametrize("kind", WEIGHTED_CASES)
def test_evaluate_equals_litert(kind: str) -> None:
    rng = np.random.default_rng(1)
    left_shifts = saturated = 0
    for i in range(COUNT):
        node = WEIGHTED_CASES[kind](rng)
        op = node.operation()
        assert op.op.check(op) is None
        assert op.op.shapes(op) == {"output": op.output.shape}
        # a sum that overflows when it is shifted to the left is undefined in LiteRT, saturates here
        left = max(int(multipliers(op)[1].max()), 0)
        if accumulator_bound(op) << left >= 1 << 31:
            continue
        x = random_int8(rng, op.inputs["input"].shape)
        (expected,) = run_reference(build_model(node), x)
        actual = op.op.evaluate(op, {"input": x, **constants(node)})["output"]
        message = f"{op}, case {i}: {node.options and vars(node.options)}, {op.attributes}"
        np.testing.assert_array_equal(actual, expected, message)
        left_shifts += left > 0
        saturated += bool((np.abs(actual.astype(int) * 2 + 1) == 255).any())
    assert left_shifts > COUNT / 40 and saturated > COUNT / 4, "the cases must cover left shifts and saturation"


@pytest.mark.parametrize("kind", WEIGHTED_CASES)
def test_kernel_equals_evaluate(kind: str) -> None:
    rng = np.random.default_rng(2)
    nodes = [WEIGHTED_CASES[kind](rng) for _ in range(250)]
    operations = [node.operation(f"op{i}") for i, node in enumerate(nodes)]
    for compiled, node in zip(compile_operations(operations), nodes, strict=True):
        x = random_int8(rng, compiled.op.inputs["input"].shape)
        compare_kernel(compiled, {"input": x, **constants(node)})


def _wide_node(kind: str, size: tuple[int, int], kernel: tuple[int, int], input_c: int, output_c: int) -> Node:
    """A convolution of stride 1 with padding, of random weights."""
    rng = np.random.default_rng(4)
    x = int8_tensor("x", (1, *size, input_c), 0.02, -37)
    scales = rng.uniform(0.001, 0.01, output_c).astype(np.float32)
    bias = int32_constant("bias", rng.integers(-1000, 1000, output_c), np.float32(0.02) * scales)
    depthwise = kind == "DEPTHWISE_CONV_2D"
    extents = (1, *kernel, output_c) if depthwise else (output_c, *kernel, input_c)
    w = int8_tensor("w", extents, scales, 0, rng.integers(-127, 128, extents))
    fan_in = int(np.prod(kernel)) * (1 if depthwise else input_c)
    y = int8_tensor("y", (1, *size, output_c), 0.05 * float(np.sqrt(fan_in)) / 8, 11)
    if depthwise:
        return depthwise_conv_2d(x, w, bias, y, strideH=1, strideW=1, depthMultiplier=output_c // input_c)
    return conv_2d(x, w, bias, y, strideH=1, strideW=1)


@pytest.mark.parametrize(
    ("kind", "size", "kernel", "input_c", "output_c"),
    [
        ("CONV_2D", (3, 5), (1, 1), 29, 29),
        ("CONV_2D", (3, 5), (1, 1), 128, 51),
        ("CONV_2D", (3, 5), (1, 1), 129, 130),  # too many to copy a position
        ("CONV_2D", (4, 5), (3, 3), 5, 76),
        ("CONV_2D", (2, 2), (3, 3), 16, 24),
        ("DEPTHWISE_CONV_2D", (5, 6), (3, 3), 53, 53),
        ("DEPTHWISE_CONV_2D", (4, 3), (3, 3), 17, 51),
        ("DEPTHWISE_CONV_2D", (1, 6), (3, 3), 26, 26),
        ("DEPTHWISE_CONV_2D", (4, 4), (5, 3), 26, 26),
        ("DEPTHWISE_CONV_2D", (4, 4), (3, 2), 26, 26),
    ],
)
def test_more_channels_than_a_kernel_holds_at_once(
    kind: str, size: tuple[int, int], kernel: tuple[int, int], input_c: int, output_c: int
) -> None:
    """Wherever the output lies in front of the input, as far as it may; or over it, where that is what it may."""
    node = _wide_node(kind, size, kernel, input_c, output_c)
    (compiled,) = compile_operations([node.operation()])
    op = compiled.op
    values = {"input": random_int8(np.random.default_rng(5), op.inputs["input"].shape), **constants(node)}
    expected = compare_kernel(compiled, values)
    assert len(np.unique(expected["output"])) > 50
    behind, further = op.op.behind(op), (1, 4, output_c, 2 * output_c, 3 * output_c + 1)
    assert behind or op.op.in_place(op) == {"output": ("input",)}
    for distance in (behind["input"] + bytes_ for bytes_ in further) if behind else (0,):
        assert_equal(op, compiled.run(values, {"output": "input"}, distance), expected)


def _tie_node(kind: str, x_scale: np.float32, w_scale: np.float32, divisor: int, per_channel: bool) -> Node:
    """Filters of 1 whose results lie on a tie, or next to it where the output's scale is rounded to float32."""
    shape = (256, 2) if kind == "FULLY_CONNECTED" else (1, 256, 1, 2)
    x = int8_tensor("x", shape, x_scale, 3)
    y = int8_tensor("y", shape, divisor * np.float32(x_scale * w_scale), 5)
    scales = np.repeat(w_scale, 2 if per_channel else 1)
    bias = int32_constant("b", [0, 0], x_scale * scales)
    if kind == "DEPTHWISE_CONV_2D":
        w = int8_tensor("w", (1, 1, 1, 2), scales, 0, np.ones((1, 1, 1, 2)))
        return depthwise_conv_2d(x, w, bias, y, strideH=1, strideW=1, depthMultiplier=1)
    if kind == "CONV_2D":
        return conv_2d(x, int8_tensor("w", (2, 1, 1, 2), scales, 0, np.eye(2)), bias, y, strideH=1, strideW=1)
    if kind == "TRANSPOSE_CONV":
        w = int8_tensor("w", (2, 1, 1, 2), scales, 0, np.eye(2))
        return transpose_conv(x, w, bias, y, strideH=1, strideW=1)
    return fully_connected(x, int8_tensor("w", (2, 2), scales, 0, np.eye(2)), bias, y)


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("kind", WEIGHTED_CASES)
def test_ties_round_as_in_litert(kind: str, per_channel: bool) -> None:
    """Where a float32 product of scales, a multiplier of 31 bits, or one rounding more or less decides otherwise."""
    rng = np.random.default_rng(3)
    values = np.repeat(np.arange(-128, 128).astype(np.int8)[:, None], 2, 1)
    for i in range(300):
        x_scale, w_scale = (2.0 ** -rng.integers(1, 8, 2) if i % 4 == 0 else np.exp(rng.uniform(-7, 0, 2))).astype(F32)
        node = _tie_node(kind, x_scale, w_scale, int(rng.choice([2, 4, 6, 8])), per_channel or kind[0] == "D")
        op = node.operation()
        x = values.reshape(op.inputs["input"].shape)
        (expected,) = run_reference(build_model(node), x)
        actual = op.op.evaluate(op, {"input": x, **constants(node)})["output"]
        np.testing.assert_array_equal(actual, expected, f"{op}: scales {x_scale!r}, {w_scale!r}, {op.output.scale}")


def _wide_dense(inputs: int, bias: int, output_scale: float = 10.0) -> Node:
    x = int8_tensor("x", (1, inputs), 0.1, -128)
    w = int8_tensor("w", (1, inputs), 0.1, 0, np.full((1, inputs), 127))
    return fully_connected(x, w, int32_constant("b", [bias], 0.01), int8_tensor("y", (1, 1), output_scale, -128))


def test_check_refuses_sums_beyond_int32() -> None:
    inputs = ACCUMULATOR_LIMIT // (127 * 255)
    rest = ACCUMULATOR_LIMIT - inputs * 127 * 255
    for bias, refused in ((rest, False), (-rest, False), (rest + 1, True), (-rest - 1, True)):
        op = _wide_dense(inputs, bias).operation()
        problem = op.op.check(op)
        assert (problem is not None) == refused, f"bias {bias}: {problem}"
        assert problem is None or str(ACCUMULATOR_LIMIT + 1) in problem
    node = _wide_dense(inputs, rest)
    x = np.full((1, inputs), 127, np.int8)
    compare_kernel(node.operation(), {"input": x, **constants(node)})


def test_check_bounds_each_depthwise_channel_alone() -> None:
    """Thousands of channels are no wider sums: only the taps of one count."""
    channels = 4096
    x = int8_tensor("x", (1, 5, 5, channels), 0.1, -128)
    w = int8_tensor("w", (1, 5, 5, channels), np.full(channels, 0.1), 0, np.full((1, 5, 5, channels), 127))
    y = int8_tensor("y", (1, 5, 5, channels), 10.0)
    bias = int32_constant("b", np.zeros(channels), np.full(channels, 0.01))
    op = depthwise_conv_2d(x, w, bias, y, strideH=1, strideW=1, depthMultiplier=1).operation()
    assert accumulator_bound(op) == 25 * 127 * 255
    assert op.op.check(op) is None


def test_scales_that_need_too_large_a_shift() -> None:
    op = _wide_dense(2, 5, 1e-12).operation()
    assert "limit is 2**30" in str(op.op.check(op))
    node = _wide_dense(2, 5, 2.0**-29 * 0.01)
    op = node.operation()
    assert op.op.check(op) is None
    for value in (-128, -127, 127):
        x = np.full((1, 2), value, np.int8)
        output = compare_kernel(op, {"input": x, **constants(node)})["output"]
        assert output[0, 0] == 127, "saturates instead of overflowing"
