"""Pools and MEAN for Helium: 4 or 16 channels at a time."""

from __future__ import annotations

from collections.abc import Sequence

from tinypeft.ir import Operation
from tinypeft.kernels.base import Kernel
from tinypeft.kernels.mve.backend import offers
from tinypeft.ops import KernelCall
from tinypeft.ops.window import Window


@offers("AVERAGE_POOL_2D")
def average_pool(op: Operation) -> Sequence[Kernel] | str:
    """One kernel."""
    window: Window = op.attributes["window"]
    taps, outputs = window.kernel_h * window.kernel_w, window.output_h * window.output_w
    cycles = outputs * (100 + window.input_c * (taps * 7 // 4 + 28))
    return [_pool(op, "tp_average_pool_mve_s8", "4 channels", cycles)]


@offers("MAX_POOL_2D")
def max_pool(op: Operation) -> Sequence[Kernel] | str:
    """One kernel."""
    window: Window = op.attributes["window"]
    taps, outputs = window.kernel_h * window.kernel_w, window.output_h * window.output_w
    cycles = outputs * (60 + -(-window.input_c // 16) * (taps * 6 + 20))
    return [_pool(op, "tp_max_pool_mve_s8", "16 channels", cycles)]


def _pool(op: Operation, function: str, form: str, cycles: int) -> Kernel:
    portable = op.op.call(op)
    assert portable is not None
    call = KernelCall(function, portable.params, portable.fields, portable.arguments)
    return Kernel("mve", form, call, ("mve/tp_pool_mve.c",), cycles=cycles, code_bytes=400, in_order=True)


@offers("MEAN")
def mean(op: Operation) -> Sequence[Kernel] | str:
    """One kernel, for means over all positions."""
    portable = op.op.call(op)
    assert portable is not None
    if portable.params != "tp_mean_params":
        return "no kernel for a mean over these axes"
    fields = portable.fields
    if fields["shift"] > 0:
        return "no kernel for a multiplier of 1 or more"
    call = KernelCall("tp_mean_mve_s8", "tp_mean_params", fields, portable.arguments)
    cycles = -(-fields["channels"] // 4) * (5 * fields["count"] + 30)
    return [Kernel("mve", "4 channels", call, ("mve/tp_mean_mve.c",), cycles=cycles, code_bytes=200, in_order=True)]
