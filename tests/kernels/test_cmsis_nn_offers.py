"""Which operations are left to CMSIS-NN, without the library: proofs of rounding and padding, reasons, paths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from random_operations import conv_2d, dense, depthwise

from tinypeft.arithmetic import exact_multiplier, requantize_double, requantize_single
from tinypeft.errors import ToolError
from tinypeft.ir import Operation, Purpose, Tensor
from tinypeft.kernels import BACKENDS, Kernel, Target
from tinypeft.kernels.cmsis_nn import find_library
from tinypeft.kernels.cmsis_nn.exactness import once_rounded_multiplier, one_row_exact
from tinypeft.ops.window import Window

CORES = BACKENDS["cmsis_nn"].cores


def offer(operation: Operation, core: str) -> Kernel | str:
    """The kernel, or the reason for none."""
    kernels = BACKENDS["cmsis_nn"].offers(operation, Target(core))
    return kernels if isinstance(kernels, str) else kernels[0]


def test_once_rounded_multipliers_are_exact() -> None:
    """For every accumulator: the library's double rounding then gives the bits of the single one."""
    rng = np.random.default_rng(1)
    found = refused = 0
    for _ in range(300):
        real = float(np.exp(rng.uniform(-9, 3)))
        multiplier, shift = exact_multiplier(real)
        reach = int(rng.choice([10, 1000, 200_000]))
        bound = int(min(rng.integers(1, reach + 1), 0x7FFFFF00 >> max(shift, 0)))
        low, high = (int(n) for n in sorted(rng.integers(-255, 256, 2)))
        pair = once_rounded_multiplier(multiplier, shift, bound, low, high)
        if pair is None:
            refused += 1
            continue
        found += 1
        assert pair[1] >= 0
        accumulators = np.arange(-bound, bound + 1)
        once = np.clip(requantize_single(accumulators, multiplier, shift), low, high)
        np.testing.assert_array_equal(np.clip(requantize_double(accumulators, *pair), low, high), once, f"{real}")
    assert found > 150 and refused > 5


def test_a_row_that_is_padded_otherwise() -> None:
    """With MVE, arm_convolve_1_x_n_s8 reads padding where a column of the image is left over, and beyond the image."""
    same = {"pad_left": 1, "stride_w": 1}
    assert one_row_exact(Window(1, 16, 4, 1, 16, 8, 1, 3, **same))
    left_over = Window(1, 10, 4, 1, 4, 8, 1, 3, stride_w=2)
    beyond = Window(1, 13, 4, 1, 7, 8, 1, 4, stride_w=2, pad_left=1)
    rng = np.random.default_rng(2)
    for window in (left_over, beyond):
        assert not one_row_exact(window)
        operation = conv_2d(rng, window)
        operation.output.scale = np.float32([1e6])  # no shift to the left
        assert offer(operation, "cortex-m55") == "no kernel for the padding of this one row"
        assert isinstance(offer(operation, "cortex-m4"), Kernel)


@pytest.mark.parametrize("core", CORES)
def test_reasons(core: str) -> None:
    rng = np.random.default_rng(3)
    for make in (conv_2d, dense):
        operation = make(rng)
        operation.inputs["hidden"] = Tensor("h", (*operation.output.shape[:-1], 2), "int16", Purpose.ACTIVATION)
        assert offer(operation, core) == "no kernel with a LoRA in its accumulators"
    operation = depthwise(rng)
    channels = operation.output.shape[-1]
    operation.inputs["multiplier"] = Tensor("m", (channels,), "int32", Purpose.ADAPTER_WEIGHT)
    assert offer(operation, core) == "no kernel for multipliers that are trained"


def test_windows_that_the_library_does_not_see() -> None:
    rng = np.random.default_rng(4)
    cropped = Window(6, 6, 4, 5, 5, 4, 2, 2, pad_top=-1, pad_left=0)
    padded = Window(4, 4, 4, 4, 5, 4, 3, 3, pad_top=1, pad_left=1)  # two columns at the right
    outside = Window(4, 4, 4, 8, 4, 4, 1, 1)
    reasons = {
        cropped: "no kernel for windows that begin inside the image",
        padded: "no kernel for a 3x3 window with two columns of padding at the right",
        outside: "no kernel for windows that lie in the padding",
    }
    for window, reason in reasons.items():
        operation = depthwise(rng, window)
        operation.output.scale = np.float32([1e6])
        assert offer(operation, "cortex-m4") == reason


def test_scratch_of_known_layers() -> None:
    """An image's first layer and a depthwise one, by hand."""
    rng = np.random.default_rng(5)
    first = conv_2d(rng, Window(32, 32, 3, 32, 32, 16, 3, 3, pad_top=1, pad_left=1))
    wide = depthwise(rng, Window(12, 12, 64, 12, 12, 64, 5, 5, pad_top=2, pad_left=2))
    for operation, core, expected in (
        (first, "cortex-m4", 2 * 28 * 2), (first, "cortex-m3", 2 * 28 * 2), (first, "cortex-m55", 4 * 32),
        (wide, "cortex-m4", 25 * 64 * 2), (wide, "cortex-m3", 0), (wide, "cortex-m55", 4 * 124 * 25),
    ):  # fmt: skip
        operation.output.scale = np.float32([1e6])
        kernel = offer(operation, core)
        assert isinstance(kernel, Kernel) and kernel.scratch_bytes == expected


def test_a_library_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="has no Include/arm_nnfunctions.h"):
        find_library(tmp_path, "cortex-m4")
    (tmp_path / "Include").mkdir()
    (tmp_path / "Include" / "arm_nnfunctions.h").touch()
    with pytest.raises(ToolError, match="libcmsis-nn.a does not exist") as caught:
        find_library(tmp_path, "cortex-m4")
    assert caught.value.hint is not None and "cmake --build" in caught.value.hint
