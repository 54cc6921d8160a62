"""Sums, products, pools, means and softmax of the `dsp` backend have the bits of the definition."""

from __future__ import annotations

import os

import numpy as np
import pytest
from dsp_cases import kernels_of, random_cases
from on_target import Case, check_on_target, need_target
from random_operations import random_operation, random_values

from tinypeft.ir import Operation, Purpose, Tensor
from tinypeft.kernels.dsp import add
from tinypeft.ops import OPS
from tinypeft.ops.add import Sum
from tinypeft.ops.window import Window

KINDS = ("ADD", "SUB", "MUL", "AVERAGE_POOL_2D", "MAX_POOL_2D", "MEAN", "SOFTMAX")


@pytest.mark.parametrize("kind", KINDS)
def test_random_operations(kind: str) -> None:
    need_target()
    cases = random_cases(5, 60, kind)
    assert len(cases) >= 10, kind
    check_on_target(cases)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(int(os.environ.get("TINYPEFT_KERNEL_SEEDS", "10"))))
@pytest.mark.parametrize("kind", KINDS)
def test_many_random_operations(kind: str, seed: int) -> None:
    need_target()
    check_on_target(random_cases(1000 + seed, 250, kind))


def activation(name: str, shape: tuple[int, ...], scale: float = 0.1, zero_point: int = 3) -> Tensor:
    """An activation of an ordinary quantisation."""
    return Tensor(name, shape, "int8", Purpose.ACTIVATION, np.array([scale], np.float32), zero_point)


def pool_of(kind: str, window: Window) -> Operation:
    """A pool without an activation."""
    tensors = {"input": activation("x", window.input_shape)}, {"output": activation("y", window.output_shape)}
    return Operation(OPS[kind], "pool", *tensors, {"window": window, "activation": "NONE"})


def mean_of(shape: tuple[int, ...]) -> Operation:
    """A global mean, of which some outputs saturate."""
    tensors = {"input": activation("x", shape)}, {"output": activation("y", (1, shape[3]), 0.09)}
    return Operation(OPS["MEAN"], "mean", *tensors, {"axes": (1, 2), "keep_dims": False})


def binary_of(kind: str, shape: tuple[int, ...], other: tuple[int, ...], activation_name: str = "NONE") -> Operation:
    """A sum or product."""
    inputs = {"input1": activation("x1", shape), "input2": activation("x2", other, 0.05, -10)}
    output = activation("y", shape, 0.12 if kind == "ADD" else 0.3)
    return Operation(OPS[kind], "binary", inputs, {"output": output}, {"activation": activation_name})


ORDINARY = [
    *(
        pool_of(kind, window)
        for kind in ("AVERAGE_POOL_2D", "MAX_POOL_2D")
        for window in (
            Window(24, 24, 16, 12, 12, 16, 2, 2, 2, 2),
            Window(24, 24, 16, 12, 12, 16, 3, 3, 2, 2),
            Window(12, 12, 30, 12, 12, 30, 3, 3, 1, 1, 1, 1, 1, 1),
            Window(25, 5, 64, 1, 1, 64, 25, 5),
            Window(3, 3, 256, 1, 1, 256, 3, 3),
            Window(20, 20, 4, 1, 1, 4, 20, 20),
        )
    ),
    *(mean_of(shape) for shape in ((1, 25, 5, 64), (1, 3, 3, 256), (1, 20, 20, 30))),
    *(binary_of(kind, (1, 8, 8, 64), (1, 8, 8, 64)) for kind in ("ADD", "MUL")),
    *(binary_of(kind, (1, 8, 8, 64), (1, 1, 1, 64)) for kind in ("ADD", "MUL")),
    *(binary_of(kind, (1, 8, 8, 64), (1, 8, 8, 64), "RELU6") for kind in ("ADD", "MUL")),
]


def test_estimates_are_near_the_counts() -> None:
    need_target()
    rng = np.random.default_rng(3)
    cases = [Case(op, kernel, random_values(rng, op)) for op in ORDINARY for kernel in kernels_of(op)]
    assert len(cases) == len(ORDINARY)
    results = check_on_target(cases, profile=True)
    ratios = [(case.operation, case.kernel.cycles / r.cycles) for case, r in zip(cases, results, strict=True)]
    assert all(0.85 < ratio < 1.15 for _, ratio in ratios), ratios


def test_linear_forms_are_found_for_most_sums_and_equal_them() -> None:
    rng = np.random.default_rng(3)
    x = np.arange(-128, 128, dtype=np.int8)
    found = tried = 0
    while tried < 40:
        operation, _ = random_operation(rng, "ADD" if tried % 2 else "SUB")
        tried += 1
        plane = add.find_plane(operation)
        if plane is None:
            continue
        found += 1
        sums = plane.start + (plane.factor1 * x.astype(np.int64)[:, None] >> add.INPUT_SHIFT)
        sums = sums + (plane.factor2 * x.astype(np.int64)[None, :] >> add.INPUT_SHIFT)
        operator = operation.op
        assert isinstance(operator, Sum) and np.abs(sums).max() < 1 << 31
        p = operator.parameters(operation)
        wanted = operator.evaluate(operation, {"input1": x[:, None], "input2": x[None, :]})["output"]
        np.testing.assert_array_equal(np.clip(sums >> add.SHIFT, p["activation_min"], p["activation_max"]), wanted)
    assert found > 10
