"""Gradients of the operators without weights: against float64, and their C kernels against `evaluate`."""

from __future__ import annotations

import layout_reference
import numpy as np
import pytest
from cases import CASES, pool, random_inputs
from elementwise_reference import FORMULAS
from gradients import backward
from kernel_harness import assert_equal, block_float, compare_kernel, compile_operations, in_8_bits

from tinypeft.arithmetic import requantize_double
from tinypeft.ir import Operation
from tinypeft.ops import OPS
from tinypeft.ops.activation import output_range
from tinypeft.ops.base import BlockFloat, Value
from tinypeft.ops.constraints import per_tensor
from tinypeft.ops.reduction import loops_of

COUNT = 120
PEAKS = (0, 1, 2, 3, 100, 16384, 32766, 32767)
DIFFERENTIABLE = [kind for kind in CASES if OPS[kind].differentiable]


def _cases(kind: str, count: int, seed: int) -> list[tuple[Operation, dict[str, Value], BlockFloat]]:
    rng = np.random.default_rng(seed)
    cases: list[tuple[Operation, dict[str, Value], BlockFloat]] = []
    while len(cases) < count:
        node = CASES[kind](rng, kind=kind)
        op = node.operation(f"op{len(cases)}")
        if op.op.check(op) is not None or any(t.dtype != "int8" for t in op.inputs.values()):
            continue
        values = {n: t.data for n, t in op.inputs.items() if t.data is not None}
        values |= dict(zip((n for n in op.inputs if n not in values), random_inputs(rng, node), strict=True))
        exponent = int(rng.integers(-40, 5))
        cases.append((op, values, block_float(rng, op.output.shape, int(rng.choice(PEAKS)), exponent)))
    return cases


def _float_forward(op: Operation, reals: dict[str, np.ndarray]) -> np.ndarray:
    """The operator on real numbers, (N, ...) samples at once, without rounding and without the clamp."""
    x = reals.get("input")
    assert x is not None
    if op.kind in ("QUANTIZE", "DEQUANTIZE"):
        return x
    if op.kind == "RESHAPE":
        return x.reshape(len(x), *op.output.shape[1:])
    if op.kind in ("MEAN", "REDUCE_MAX", "REDUCE_MIN"):
        axes = tuple(axis for axis in op.attributes["axes"] if axis > 0)  # axis 0 is 1 long and holds the samples here
        reduced = x.mean(axes) if op.kind == "MEAN" else x.max(axes) if op.kind == "REDUCE_MAX" else x.min(axes)
        return reduced.reshape(len(x), -1)
    window = op.attributes["window"]
    y = np.empty((len(x), *window.output_shape[1:]))
    for oy in range(window.output_h):
        for ox in range(window.output_w):
            top, left = oy * window.stride_h - window.pad_top, ox * window.stride_w - window.pad_left
            taps = x[:, max(top, 0) : top + window.kernel_h, max(left, 0) : left + window.kernel_w]
            y[:, oy, ox] = taps.mean(axis=(1, 2)) if op.kind == "AVERAGE_POOL_2D" else taps.max(axis=(1, 2))
    return y


def _float_gradients(op: Operation, values: dict[str, Value], d_output: np.ndarray) -> dict[str, np.ndarray]:
    """Central differences of sum(d_output * forward) with respect to every real input."""
    if op.kind in layout_reference.LAYOUT:
        return layout_reference.gradients(op, d_output)
    reals = {}
    for name, tensor in op.inputs.items():
        scale, zero_point = per_tensor(tensor)
        # distinct by less than a step, earlier ones larger: ties go to the first
        ties = np.linspace(0, 0.4, tensor.size)[:: 1 if op.kind == "REDUCE_MIN" else -1].reshape(tensor.shape)
        reals[name] = scale * (values[name].astype(np.float64) - zero_point + ties)
    gradients = {}
    for name, real in reals.items():
        step = 0.1 * per_tensor(op.inputs[name])[0] / real.size
        offsets = step * np.eye(real.size).reshape(real.size, *real.shape[1:])
        repeated = {n: np.repeat(r, real.size, 0) for n, r in reals.items()}
        up, down = (_float_forward(op, repeated | {name: real + sign * offsets}) for sign in (1, -1))
        change = (up - down).reshape(real.size, -1) * d_output.reshape(1, -1)
        gradients[name] = change.sum(axis=1).reshape(real.shape) / (2 * step)
    return gradients


@pytest.mark.parametrize("kind", [kind for kind in DIFFERENTIABLE if kind not in (*FORMULAS, "SOFTMAX")])
def test_vjp_approximates_the_float_gradient(kind: str) -> None:
    compared = 0
    for op, values, d_output in _cases(kind, COUNT, 3):
        if d_output.peak < 100:
            continue
        gradients, _, masked = backward(op, values, d_output)
        real = d_output.to_float()
        output = op.op.evaluate(op, values)["output"]
        if masked:
            low, high = output_range(op)
            real = np.where((output > low) & (output < high), real, 0.0)
        expected = _float_gradients(op, values, real)
        assert set(gradients) == {name for name, tensor in op.inputs.items() if tensor.data is None}
        for name, gradient in gradients.items():
            actual, wanted = gradient.to_float().reshape(-1), expected[name].reshape(-1)
            # a max pool rounds before it adds: half a step for each of up to 16 overlapping windows
            relative = 4e-3 if kind == "MAX_POOL_2D" else 4e-4
            if kind in layout_reference.LAYOUT:
                relative *= layout_reference.largest_sum(op)
            np.testing.assert_allclose(actual, wanted, rtol=0, atol=relative * np.abs(real).max(), err_msg=f"{op}")
            if wanted.any():
                cosine = actual @ wanted / np.sqrt((actual @ actual) * (wanted @ wanted))
                assert cosine > 0.999, f"{op}: cosine {cosine}"
                compared += 1
    assert compared > COUNT / 5


@pytest.mark.parametrize("bits", [16, 8])
@pytest.mark.parametrize("kind", DIFFERENTIABLE)
def test_backward_kernel_equals_evaluate(kind: str, bits: int) -> None:
    steps = [
        (step, operands)
        for op, values, d_output in _cases(kind, COUNT, 4)
        for step, operands in backward(op, values, d_output)[1]
        if step.kind in OPS
    ]
    if kind in ("QUANTIZE", "DEQUANTIZE"):
        assert not steps, "the gradient passes unchanged"
        return
    # a concatenation has a gradient for each of its inputs; a sum passes it unchanged where nothing is broadcast
    assert len(steps) >= (COUNT / 4 if kind in ("ADD", "SUB") else COUNT)
    for step, _ in steps:
        assert step.op.check(step) is None
    if bits == 8:
        steps = [(step, in_8_bits(step, operands)) for step, operands in steps]
    for compiled, (_, operands) in zip(compile_operations([step for step, _ in steps]), steps, strict=True):
        compare_kernel(compiled, operands)


def test_mantissas_use_their_range() -> None:
    """A dense gradient keeps at least 13 bits through an average pool and a mean."""
    rng = np.random.default_rng(5)
    for kind in ("AVERAGE_POOL_2D", "MEAN"):
        for op, values, _ in _cases(kind, 40, 6):
            same = BlockFloat(np.full(op.output.shape, 20000 + int(rng.integers(12767)), np.int16), -20)
            for step, operands in backward(op, values, same)[1]:
                if step.kind in OPS:
                    result: BlockFloat = step.op.evaluate(step, operands)["d_input"]
                    assert operands["d_output"].peak == 0 or 1 << 12 <= result.peak


def test_average_pool_of_many_overlapping_windows() -> None:
    """The accumulator is narrowed where peak * L1 would leave int32."""
    rng = np.random.default_rng(7)
    operations, operands = [], []
    for size in (8, 12, 16):
        node = pool(rng, "AVERAGE_POOL_2D")
        for tensor in (*node.inputs, *node.outputs):
            assert tensor is not None
            tensor.shape = (1, size, size, 9)
        node.options.filterHeight = node.options.filterWidth = size
        node.options.strideH = node.options.strideW = 1
        node.options.padding = 0
        _, steps, _ = backward(
            node.operation(), {"input": np.zeros((1, size, size, 9), np.int8)}, block_float(rng, (1, size, size, 9))
        )
        operations.append(steps[-1][0])
        operands.append({"d_output": BlockFloat(np.full((1, size, size, 9), 32767, np.int16), -3)})
    for compiled, values in zip(compile_operations(operations), operands, strict=True):
        compare_kernel(compiled, values)


def test_max_pool_ties_go_to_the_first() -> None:
    rng = np.random.default_rng(8)
    node = pool(rng, "MAX_POOL_2D")
    node.inputs[0].shape, node.outputs[0].shape = (1, 4, 4, 1), (1, 2, 2, 1)  # type: ignore[union-attr]
    node.options.padding, node.options.fusedActivationFunction = 1, 0
    node.options.filterHeight = node.options.filterWidth = node.options.strideH = node.options.strideW = 2
    d_output = BlockFloat(np.array([1, 2, 3, 4], np.int16).reshape(1, 2, 2, 1), 0)
    gradients, _, masked = backward(node.operation(), {"input": np.full((1, 4, 4, 1), 127, np.int8)}, d_output)
    assert not masked
    expected = [[1, 0, 2, 0], [0, 0, 0, 0], [3, 0, 4, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(gradients["input"].mantissa[0, :, :, 0], expected)


def test_mean_clamps_only_where_it_can() -> None:
    for op, values, d_output in _cases("MEAN", 200, 9):
        _, _, masked = backward(op, values, d_output)
        if not masked:
            p = op.op.call(op).fields  # type: ignore[union-attr]
            extremes = (np.array([-128, 127]) + p["input_offset"]) * loops_of(op).count
            raw = requantize_double(extremes, p["multiplier"], p["shift"]) + p["output_offset"]
            assert raw.min() >= -129 and raw.max() <= 128


def test_assert_equal_notices_a_difference() -> None:
    op, values, d_output = _cases("PAD", 1, 10)[0]
    step, operands = backward(op, values, d_output)[1][-1]
    expected = step.op.evaluate(step, operands)
    wrong = {"d_input": BlockFloat(expected["d_input"].mantissa, expected["d_input"].exponent + 1)}
    with pytest.raises(AssertionError, match="exponent"):
        assert_equal(step, wrong, expected)
