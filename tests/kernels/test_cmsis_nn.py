"""Calls of CMSIS-NN on the target equal `evaluate`; scratch is what the library asks for.

$CMSIS_NN_PATH holds Include/ and, for each core, <core>/libcmsis-nn.a; without it these tests are skipped.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from cases import random_int8
from on_target import Case, check_on_target, need_target, run_on_target
from random_operations import conv_2d, depthwise, random_operation, random_values

from tinypeft.boards import load_board
from tinypeft.errors import ToolError
from tinypeft.ir import Operation, Purpose, Tensor
from tinypeft.kernels import BACKENDS, Kernel, Target
from tinypeft.kernels.cmsis_nn import Library, find_library
from tinypeft.ops.base import CArray
from tinypeft.ops.fully_connected import dense_window
from tinypeft.ops.weighted import BiasState, layer_bias, reads_directly, zero_point_bias
from tinypeft.ops.window import Window

BOARDS = ("mps2_an385", "mps2_an386", "mps3_an547")
KINDS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "MUL", "AVERAGE_POOL_2D", "MAX_POOL_2D", "SOFTMAX")


def need_library(board: str) -> Library:
    """The library for a board, or a skip that says what is missing."""
    need_target(board)
    folder = os.environ.get("CMSIS_NN_PATH")
    if folder is None:
        pytest.skip("CMSIS_NN_PATH does not name the folder of CMSIS-NN")
    try:
        return find_library(Path(folder), load_board(board).core)
    except ToolError as error:
        pytest.skip(f"{error.message}; {error.hint}")


def offered(operation: Operation, board: str) -> Kernel | str:
    """The kernel, or the reason for none."""
    kernels = BACKENDS["cmsis_nn"].offers(operation, Target(load_board(board).core))
    return kernels if isinstance(kernels, str) else kernels[0]


def cases_of(rng: np.random.Generator, operation: Operation, board: str) -> list[Case]:
    """The kernel where there is one, over its input too where that is allowed."""
    kernel, values = offered(operation, board), random_values(rng, operation)
    if isinstance(kernel, str):
        assert kernel.startswith("no kernel"), kernel
        return []
    cases = [Case(operation, kernel, values)]
    if kernel.in_order:
        over = operation.op.in_place(operation).get("output", ())
        overlaps = [*((name, 0) for name in over), *operation.op.behind(operation).items()]
        cases += [Case(operation, kernel, values, overlap) for overlap in overlaps]
    return cases


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("kind", KINDS)
def test_equals_evaluate(kind: str, board: str) -> None:
    library = need_library(board)
    rng = np.random.default_rng(KINDS.index(kind))
    cases: list[Case] = []
    for _ in range(100):
        cases += cases_of(rng, random_operation(rng, kind)[0], board)
    assert len(cases) > 20
    check_on_target(cases, board, library=library)


@pytest.mark.parametrize("board", BOARDS)
def test_one_row(board: str) -> None:
    """Convolutions over one row have a function of their own, whose padding is not always right."""
    library = need_library(board)
    rng = np.random.default_rng(20)
    drawn = [conv_2d(rng, one_row_window(rng)) for _ in range(200)]
    cases = [case for operation in drawn for case in cases_of(rng, operation, board)]
    assert len(cases) > 100
    check_on_target(cases, board, library=library)


def one_row_window(rng: np.random.Generator) -> Window:
    """A window over one row of 4 or 8 channels: "same" or "valid", any stride."""
    stride, channels = int(rng.integers(1, 4)), int(rng.choice([4, 8]))
    kernel, width = int(rng.integers(1, 8)), int(rng.integers(8, 30))
    same = rng.random() < 0.7
    output = -(-width // stride) if same else (width - kernel) // stride + 1
    pad = max((output - 1) * stride + kernel - width, 0) // 2 if same else 0
    return Window(1, width, channels, 1, output, int(rng.integers(1, 9)), 1, kernel, 1, stride, pad_left=pad)


@pytest.mark.parametrize("board", BOARDS)
def test_single_input_channel(board: str) -> None:
    """With MVE the library makes a convolution of a depthwise one that has a single input channel."""
    library = need_library(board)
    rng = np.random.default_rng(30)
    cases: list[Case] = []
    for _ in range(60):
        size, kernel, multiplier = (int(n) for n in (rng.integers(3, 12), rng.integers(1, 4), rng.integers(1, 20)))
        window = Window(
            size, size, 1, size, size, multiplier, kernel, kernel, pad_top=kernel // 2, pad_left=kernel // 2
        )
        cases += cases_of(rng, depthwise(rng, window), board)
    assert len(cases) > 30
    check_on_target(cases, board, library=library)


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("purpose", [Purpose.ADAPTER_WEIGHT, Purpose.MERGED_WEIGHT])
def test_biases_and_filters_in_memory(purpose: Purpose, board: str) -> None:
    """A trained bias, and that of merged filters, holds what the input's zero point adds where one tap is read."""
    library = need_library(board)
    rng = np.random.default_rng(60)
    cases: list[Case] = []
    for kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED") * 20:
        operation = random_operation(rng, kind)[0]
        values = in_memory(rng, operation, purpose)
        kernel = offered(operation, board)
        if isinstance(kernel, Kernel):
            cases.append(Case(operation, kernel, {"input": random_int8(rng, operation.inputs["input"].shape)} | values))
    assert len(cases) > 20
    check_on_target(cases, board, library=library)


def in_memory(rng: np.random.Generator, operation: Operation, purpose: Purpose) -> dict[str, np.ndarray]:
    """Make the bias of a layer a trained one, or filter and bias merged ones; their values."""
    channels, filters = operation.output.shape[-1], operation.inputs["filter"]
    window = operation.attributes.get("window") or dense_window(operation)
    direct = operation.kind != "DEPTHWISE_CONV_2D" and reads_directly(window, filters)
    base = layer_bias(operation)
    folded = zero_point_bias(operation) if direct else np.zeros(channels, np.int64)
    change = rng.integers(-500, 501, channels) if purpose is Purpose.ADAPTER_WEIGHT else 0
    bias = (base + folded + change).astype(np.int32)
    operation.inputs["bias"] = Tensor("b", (channels,), "int32", purpose)
    if purpose is Purpose.ADAPTER_WEIGHT:
        operation.attributes["trained_bias"] = BiasState(base, folded, 512)
        return {"bias": bias}
    operation.inputs["filter"] = dataclasses.replace(filters, data=None, purpose=purpose)
    return {"bias": bias, "filter": filters.data}


@pytest.mark.parametrize("board", BOARDS)
def test_extreme_shifts(board: str) -> None:
    """Channels that training has emptied have large biases and next to no scale: shifts to the right by up to 31."""
    library = need_library(board)
    rng = np.random.default_rng(50)
    cases: list[Case] = []
    for kind in (conv_2d, depthwise) * 20:
        operation = kind(rng)
        scales, channels = operation.inputs["filter"].scale, operation.output.shape[-1]
        assert scales is not None and operation.output.scale is not None
        operation.inputs["filter"].scale = (scales * 2.0 ** -rng.integers(0, 31, len(scales))).astype(np.float32)
        data = rng.integers(-(1 << 31) + (1 << 25), (1 << 31) - (1 << 25), channels).astype(np.int32)
        operation.inputs["bias"] = Tensor("b", (channels,), "int32", Purpose.FROZEN_WEIGHT, None, 0, data)
        if operation.op.check(operation) is None:
            cases += cases_of(rng, operation, board)
    shifts = np.concatenate([array.values for case in cases for array in tables_of(case.kernel, "shift")])
    assert set(range(-31, -20)) <= set(shifts.tolist())
    check_on_target(cases, board, library=library)


def tables_of(kernel: Kernel, name: str) -> list[CArray]:
    """The tables of that name."""
    return [argument for argument in kernel.call.arguments if isinstance(argument, CArray) and argument.name == name]


@pytest.mark.parametrize("board", BOARDS)
def test_scratch_is_what_the_library_asks_for(board: str) -> None:
    """With a byte less, the check at start-up refuses."""
    library = need_library(board)
    rng = np.random.default_rng(40)
    cases: list[Case] = []
    for kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "AVERAGE_POOL_2D") * 40:
        cases += cases_of(rng, random_operation(rng, kind)[0], board)
    short = [less_scratch(case) for case in cases if case.kernel.scratch_bytes and case.overlap is None]
    assert len(short) > (5 if board == "mps2_an385" else 20)
    for case, result in zip(short, run_on_target(short, board, library=library), strict=True):
        assert (result.outputs["output"].view(np.uint8) == 0xA5).all(), f"{case.operation} ran: {case.kernel}"


def less_scratch(case: Case) -> Case:
    """The same with a byte less of scratch, as its check is told."""
    check = case.kernel.check
    assert check is not None
    check = dataclasses.replace(check, arguments=[case.kernel.scratch_bytes - 1])
    return dataclasses.replace(case, kernel=dataclasses.replace(case.kernel, check=check))
