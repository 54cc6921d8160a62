"""Operators without weights: `evaluate` against LiteRT's reference kernels, and the C kernels against `evaluate`."""

from __future__ import annotations

import numpy as np
import pytest
from cases import CASES, random_inputs
from kernel_harness import compare_kernel, compile_operations
from tflite_builder import Node, build_model, run_reference

from tinypeft.ir import Operation
from tinypeft.ops.base import Value

COUNT = 300


def _make(kind: str, count: int, seed: int) -> list[tuple[Node, Operation, list[np.ndarray], dict[str, Value]]]:
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        node = CASES[kind](rng, kind=kind)
        op = node.operation(f"op{i}")
        assert op.op.shapes(op) == {"output": op.output.shape}
        inputs = random_inputs(rng, node)
        values = {n: t.data for n, t in op.inputs.items() if t.data is not None}
        values |= dict(zip((n for n in op.inputs if n not in values), inputs, strict=True))
        made.append((node, op, inputs, values))
    return made


@pytest.mark.parametrize("kind", CASES)
def test_evaluate_equals_litert(kind: str) -> None:
    for node, op, inputs, values in _make(kind, COUNT, 1):
        if op.op.check(op) is not None:
            continue
        (expected,) = run_reference(build_model(node), *inputs, kind=kind)
        actual = op.op.evaluate(op, values)["output"]
        assert actual.dtype == expected.dtype
        np.testing.assert_array_equal(actual, expected, f"{node}")


@pytest.mark.parametrize("kind", CASES)
def test_kernel_equals_evaluate(kind: str) -> None:
    made = [(op, values) for _, op, _, values in _make(kind, COUNT, 2) if op.op.check(op) is None]
    assert len(made) > COUNT / 2
    for compiled, (_, values) in zip(compile_operations([op for op, _ in made]), made, strict=True):
        compare_kernel(compiled, values)
