"""SOFTMAX beyond a plain .tflite: the scale's shift from an adapter, many classes."""

from __future__ import annotations

import ai_edge_litert.schema_py_generated as schema
import numpy as np
from gradients import backward
from kernel_harness import block_float, compare_kernel, compile_operations
from tflite_builder import Node, build_model, int8_tensor, run_reference

from tinypeft.ir import Operation, Purpose, Tensor


def _node(depth: int, scale: float) -> Node:
    x, y = int8_tensor("x", (1, depth), scale, 3), int8_tensor("y", (1, depth), 1 / 256, -128)
    return Node("SOFTMAX", schema.SoftmaxOptionsT(beta=1.0), [x], [y])


def _with_shift(node: Node, name: str) -> Operation:
    op = node.operation(name)
    op.inputs["input_shift"] = Tensor("shift", (1,), "int8", Purpose.ADAPTER_WEIGHT)
    return op


def test_input_shift_is_a_larger_scale() -> None:
    rng = np.random.default_rng(0)
    cases = [(float(rng.uniform(0.005, 0.3)), int(rng.integers(-6, 7)), int(rng.integers(1, 20))) for _ in range(150)]
    operations = [_with_shift(_node(depth, scale), f"op{i}") for i, (scale, _, depth) in enumerate(cases)]
    for compiled, (scale, shift, depth) in zip(compile_operations(operations), cases, strict=True):
        x = rng.integers(-128, 128, (1, depth)).astype(np.int8)
        output = compare_kernel(compiled, {"input": x, "input_shift": np.array([shift], np.int8)})["output"]
        (expected,) = run_reference(build_model(_node(depth, float(np.float32(scale)) * 2.0**shift)), x)
        np.testing.assert_array_equal(output, expected)


def test_input_shift_saturates() -> None:
    rng = np.random.default_rng(1)
    operations = [_with_shift(_node(10, 0.1), f"op{shift}") for shift in (0, 1, 2)]
    x = rng.integers(-128, 128, (1, 10)).astype(np.int8)
    for compiled, shift in zip(compile_operations(operations), (-128, -24, 127), strict=True):
        output = compare_kernel(compiled, {"input": x, "input_shift": np.array([shift], np.int8)})["output"]
        expected = np.where(x == x.max(), 127, -128) if shift > 0 else np.full(x.shape, 26 - 128)
        np.testing.assert_array_equal(output, expected)


def test_more_classes_than_the_reference_allows() -> None:
    rng = np.random.default_rng(2)
    operations = [_node(depth, 0.001).operation(f"op{depth}") for depth in (512, 1000, 4095)]
    for compiled in compile_operations(operations):
        x = rng.integers(-128, 128, compiled.op.output.shape).astype(np.int8)
        assert (compare_kernel(compiled, {"input": x})["output"] <= -127).all()
    assert "4096" in str(operations[0].op.check(_node(4096, 0.1).operation()))


def test_many_rows_of_few_classes() -> None:
    """Probabilities of every size, where the last bit of the reciprocal decides."""
    rng = np.random.default_rng(3)
    nodes = []
    for depth in (2, 3, 4, 10):
        x, y = int8_tensor("x", (1, 4000, depth), 0.37 / depth, 3), int8_tensor("y", (1, 4000, depth), 1 / 256, -128)
        nodes.append(Node("SOFTMAX", schema.SoftmaxOptionsT(beta=1.0), [x], [y]))
    operations = [node.operation(f"op{i}") for i, node in enumerate(nodes)]
    for compiled, node in zip(compile_operations(operations), nodes, strict=True):
        values = rng.integers(-40, 40, compiled.op.output.shape).astype(np.int8)
        (expected,) = run_reference(build_model(node), values)
        np.testing.assert_array_equal(compare_kernel(compiled, {"input": values})["output"], expected)


def test_gradient_follows_float64() -> None:
    """Against the derivative of a softmax in float64; every row's gradient adds up to nearly nothing."""
    rng = np.random.default_rng(4)
    for depth, rows, beta in ((2, 1, 1.0), (10, 1, 1.0), (5, 12, 1.0), (40, 3, 1.0), (10, 4, 0.3), (300, 2, 1.0)):
        scale = 0.04 if depth < 300 else 0.08
        x, y = int8_tensor("x", (1, rows, depth), scale, 3), int8_tensor("y", (1, rows, depth), 1 / 256, -128)
        op = Node("SOFTMAX", schema.SoftmaxOptionsT(beta=beta), [x], [y]).operation()
        values = {"input": rng.integers(-100, 100, x.shape).astype(np.int8)}
        d_output = block_float(rng, x.shape, 32767, -18)
        actual, steps, masked = backward(op, values, d_output)
        assert not masked and len(steps) == (1 if beta == 1 else 2)
        z = beta * scale * values["input"].astype(np.float64)
        p = np.exp(z - z.max(axis=-1, keepdims=True))
        p /= p.sum(axis=-1, keepdims=True)
        d = d_output.to_float()
        expected = beta * p * (d - (p * d).sum(axis=-1, keepdims=True))
        a = actual["input"].to_float()
        assert (a * expected).sum() / np.sqrt((a * a).sum() * (expected * expected).sum()) > 0.99
        np.testing.assert_allclose(a, expected, rtol=0, atol=0.012 * np.abs(d).max())
        assert np.abs(a.sum(axis=-1)).max() <= 1e-3 * np.abs(d).max()
        for step, operands in steps:
            compare_kernel(step, operands)


def test_gradient_of_probabilities_that_are_all_zero() -> None:
    """Many equal inputs round to probabilities of 0; nothing is divided by."""
    op = _node(1000, 0.001).operation()
    actual, steps, _ = backward(
        op, {"input": np.zeros((1, 1000), np.int8)}, block_float(np.random.default_rng(5), (1, 1000))
    )
    assert actual["input"].peak == 0
    compare_kernel(*steps[0])
