"""Gradients of convolutions, dense and depthwise layers for Helium, with mantissas of 16 bits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinypeft.ir import Operation
from tinypeft.kernels.base import Kernel
from tinypeft.kernels.mve.backend import offers
from tinypeft.kernels.mve.requantization import multiple, packed_bytes, table_bytes
from tinypeft.ops import KernelCall
from tinypeft.ops.weighted import group_count, tap_bytes
from tinypeft.ops.window import Window

#: Input channels that are computed together, and mantissas of a chunk.
_TOGETHER, _CHUNK = 4, 8
_NARROW = "no kernel for gradients of 8 bits"


@offers("CONV_2D_BACKWARD_INPUT")
def convolution(op: Operation) -> Sequence[Kernel] | str:
    """One kernel: of packed filters, or of those of the device's own."""
    window: Window = op.attributes["window"]
    if op.output.dtype != "bfp16":
        return _NARROW
    if "first_channel" in op.attributes or group_count(window, op.inputs["filter"]) != 1:
        return "no kernel for groups"
    portable = op.op.call(op)
    data = op.inputs["filter"].data
    assert portable is not None
    if data is None or "l1" in op.inputs:
        return _of_rows(op, portable)
    rows = data.reshape(window.output_c, -1, window.input_c).transpose(2, 1, 0).reshape(window.input_c, -1)
    length, channels = multiple(rows.shape[1], _CHUNK), multiple(window.input_c, _TOGETHER)
    packed = np.zeros((channels, length), np.int8)
    packed[: window.input_c, : rows.shape[1]] = rows
    table = packed_bytes(packed.reshape(-1, _TOGETHER, length // _CHUNK, _CHUNK).transpose(0, 2, 1, 3))
    one_to_one = pointwise(window)
    fields = {
        "window": window.fields(),
        "pointwise": int(one_to_one),
        "l1": portable.fields["l1"],
        "chunks": length // _CHUNK,
    }
    arguments = [op.inputs["d_acc"], table, op.inputs.get("addend"), op.output]
    call = KernelCall("tp_conv_backward_input_mve_s16", "tp_conv_backward_mve_params", fields, arguments)
    gathered = 20 + 4 * length // _CHUNK if one_to_one else window.kernel_h * (40 + window.kernel_w * 60)
    each = channels // _TOGETHER * (10 * length // _CHUNK + 11) + gathered + 50
    return [
        Kernel(
            "mve",
            f"{_TOGETHER} channels x {_CHUNK} mantissas",
            call,
            ("mve/tp_conv_backward_mve.c",),
            scratch_bytes=2 * length,
            cycles=window.input_h * window.input_w * each,
            code_bytes=900,
            table_bytes=table_bytes(arguments),
            in_order=True,
        )
    ]


def pointwise(window: Window) -> bool:
    """Whether each input is read by the output at its place alone."""
    unit = (window.kernel_h, window.kernel_w, window.stride_h, window.stride_w) == (1, 1, 1, 1)
    same = (window.input_h, window.input_w) == (window.output_h, window.output_w)
    return unit and same and not window.pad_top and not window.pad_left


def _of_rows(op: Operation, portable: KernelCall) -> Sequence[Kernel] | str:
    window: Window = op.attributes["window"]
    if not pointwise(window):
        return "no kernel for weights that are computed on the device but for a window of 1x1"
    call = KernelCall("tp_conv_backward_rows_mve_s16", portable.params, portable.fields, portable.arguments)
    each = window.output_c * 8 + -(-window.input_c // 4) * (7 * window.output_c + 26) + 15
    return [
        Kernel(
            "mve",
            "4 channels of each row",
            call,
            ("mve/tp_conv_backward_mve.c",),
            scratch_bytes=4 * window.output_c,
            cycles=window.input_h * window.input_w * each,
            code_bytes=500,
            in_order=True,
        )
    ]


@offers("DEPTHWISE_CONV_2D_BACKWARD_INPUT")
def depthwise(op: Operation) -> Sequence[Kernel] | str:
    """One kernel, not in place."""
    window: Window = op.attributes["window"]
    if op.output.dtype != "bfp16":
        return _NARROW
    if window.input_c != window.output_c:
        return "no kernel for a depth multiplier"
    portable = op.op.call(op)
    assert portable is not None
    call = KernelCall("tp_depthwise_conv_backward_input_mve_s16", portable.params, portable.fields, portable.arguments)
    taps = window.kernel_h * window.kernel_w
    each = -(-window.input_c // 16) * (18 * taps + 40) + 22 * taps
    return [
        Kernel(
            "mve",
            "16 channels",
            call,
            ("mve/tp_conv_backward_mve.c",),
            scratch_bytes=tap_bytes(window),
            cycles=window.input_h * window.input_w * each,
            code_bytes=700,
        )
    ]


@offers("REQUANTIZE_BACKWARD")
def requantization(op: Operation) -> Sequence[Kernel] | str:
    """One kernel."""
    if op.output.dtype != "bfp16":
        return _NARROW
    portable = op.op.call(op)
    assert portable is not None
    channels = portable.fields["channels"]
    if "mask" in op.inputs and channels % 8:
        return f"no kernel for a mask of {channels} channels, no multiple of 8"
    function = portable.function.replace("_s16", "_mve_s16")
    call = KernelCall(function, portable.params, portable.fields, portable.arguments)
    cycles = portable.fields["positions"] * (12 + -(-channels // 8) * 26) + 4 * channels + 60
    sources = ("mve/tp_requantize_backward_mve.c",)
    return [Kernel("mve", "8 channels", call, sources, cycles=cycles, code_bytes=300, in_order=True)]
