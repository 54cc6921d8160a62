"""Depthwise convolutions of the `dsp` backend: bits, also where the output lies over the input, and estimates."""

from __future__ import annotations

import os

import numpy as np
import pytest
from dsp_cases import M4, cases_of, kernels_of
from on_target import Case, check_on_target, need_target
from random_operations import conv_2d, depthwise, int8_activation, random_values

from tinypeft.ir import Graph, Operation
from tinypeft.kernels import BACKENDS, Kernel
from tinypeft.ops.base import KernelCall
from tinypeft.ops.window import Window
from tinypeft.planner import live_buffers, lower_bound


def random_cases(seed: int, count: int) -> list[Case]:
    """Every kernel of `count` random operations, also with the output over the input."""
    rng = np.random.default_rng(seed)
    return [case for _ in range(count) for case in depthwise_cases(rng)]


def depthwise_cases(rng: np.random.Generator, window: Window | None = None) -> list[Case]:
    """Those of one operation."""
    operation = depthwise(rng, window)
    return cases_of(operation, random_values(rng, operation))


@pytest.mark.parametrize("seed", range(3))
def test_random_operations(seed: int) -> None:
    need_target()
    cases = random_cases(seed, 60)
    assert len(cases) > 60
    check_on_target(cases)


def wide_window(rng: np.random.Generator) -> Window:
    """A window over an image that takes loops within its rows, or many rows."""
    kernel = [(3, 3), (3, 3), (3, 3), (1, 3), (3, 1), (2, 2), (5, 5), (1, 9)][rng.integers(8)]
    h, w = int(rng.integers(5, 20)), int(rng.integers(14, 60))
    stride = [(1, 1), (1, 1), (2, 2), (1, 2), (3, 1)][rng.integers(5)]
    top, bottom, left, right = (int(rng.integers(n)) for n in np.repeat(kernel, 2))
    output_h, output_w = (
        (h + top + bottom - kernel[0]) // stride[0] + 1,
        (w + left + right - kernel[1]) // stride[1] + 1,
    )
    channels = int(rng.choice([4, 4, 8, 12, 7, 3]))
    multiplier = 1 if rng.random() < 0.8 else 2
    return Window(
        h, w, channels, output_h, output_w, channels * multiplier, *kernel, *stride, 1, 1, top, left
    )  # fmt: skip


def wide_cases(seed: int, count: int) -> list[Case]:
    """Those of `count` operations with wide windows."""
    rng = np.random.default_rng(seed)
    return [case for _ in range(count) for case in depthwise_cases(rng, wide_window(rng))]


def test_wide_images() -> None:
    need_target()
    check_on_target(wide_cases(1, 30))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(int(os.environ.get("TINYPEFT_KERNEL_SEEDS", "10"))))
def test_many_random_operations(seed: int) -> None:
    need_target()
    check_on_target(random_cases(1000 + seed, 250))
    check_on_target(wide_cases(2000 + seed, 60))


WINDOWS = {
    "narrow": Window(25, 5, 64, 25, 5, 64, 3, 3, 1, 1, 1, 1, 1, 1),
    "wide": Window(24, 48, 8, 24, 48, 8, 3, 3, 1, 1, 1, 1, 1, 1),
    "stride 2": Window(24, 24, 16, 12, 12, 16, 3, 3, 2, 2),
    "small": Window(3, 3, 256, 3, 3, 256, 3, 3, 1, 1, 1, 1, 1, 1),
    "channels that are no multiple of four": Window(13, 13, 30, 13, 13, 30, 3, 3, 1, 1, 1, 1, 1, 1),
    "depth multiplier": Window(12, 12, 4, 12, 12, 8, 3, 3, 1, 1, 1, 1, 1, 1),
    "5x5": Window(12, 12, 16, 12, 12, 16, 5, 5, 1, 1, 1, 1, 2, 2),
    "7x7, stride 2": Window(24, 24, 8, 12, 12, 8, 7, 7, 2, 2, 1, 1, 2, 2),
    "1x10": Window(1, 100, 16, 1, 100, 16, 1, 10, 1, 1, 1, 1, 0, 4),
    "column of an image": Window(100, 1, 16, 100, 1, 16, 9, 1, 1, 1, 1, 1, 4, 0),
    "dilated": Window(12, 12, 16, 12, 12, 16, 3, 3, 1, 1, 2, 2, 2, 2),
}


def test_estimates_are_near_the_counts() -> None:
    need_target()
    rng = np.random.default_rng(3)
    names, cases = [], []
    for name, window in WINDOWS.items():
        operation = depthwise(rng, window)
        while not kernels_of(operation):
            operation = depthwise(rng, window)
        for kernel in kernels_of(operation):
            names.append(f"{name}, {kernel.form}")
            cases.append(Case(operation, kernel, random_values(rng, operation)))
    results = check_on_target(cases, profile=True)
    ratios = {name: case.kernel.cycles / r.cycles for name, case, r in zip(names, cases, results, strict=True)}
    assert all(0.9 < ratio < 1.1 for ratio in ratios.values()), ratios


def test_what_has_no_kernel_says_why() -> None:
    rng = np.random.default_rng(1)
    operation = depthwise(rng)
    operation.inputs["multiplier"] = operation.inputs["filter"]
    assert "run time" in str(BACKENDS["dsp"].offers(operation, M4))


def test_a_chain_of_kernels_in_place_needs_one_image_and_a_little() -> None:
    """Pointwise and depthwise layers in turn: whole planes lie in place, pointwise outputs a pixel in front."""
    rng = np.random.default_rng(1)
    source = int8_activation("x", (1, 25, 5, 1), rng)
    graph = Graph("inference", [source], [], [])
    for i in range(7):
        window = WINDOWS["narrow"] if i % 2 else Window(25, 5, source.shape[3], 25, 5, 64, 1, 1)
        drawn = (depthwise if i % 2 else conv_2d)(rng, window)
        output = int8_activation(f"y{i}", window.output_shape, rng)
        operation = Operation(
            drawn.op, f"op{i}", drawn.inputs | {"input": source}, {"output": output}, drawn.attributes
        )
        if i % 2:
            call = KernelCall("f", "", {})
            operation.kernel = Kernel("dsp", "planes", call, (), scratch_bytes=1728, in_place=("input",))
        graph.operations.append(operation)
        source = output
    graph.outputs.append(source)
    assert lower_bound(live_buffers(graph))[0] <= 8000 + 3 * 64 + 1728
