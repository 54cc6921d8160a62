"""DEPTHWISE_CONV_2D for Helium: the window of one channel as one vector of four rows of four columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinypeft.ir import Operation
from tinypeft.kernels.base import Kernel
from tinypeft.kernels.mve.backend import offers
from tinypeft.kernels.mve.requantization import (
    folded_bias,
    multiple,
    multiplier_tables,
    packed_bytes,
    refusal,
    table_bytes,
    twice,
)
from tinypeft.ops import CArray, KernelCall
from tinypeft.ops.depthwise_conv_2d import by_planes
from tinypeft.ops.window import Window

#: What words may take of the arena: a kernel is offered for each.
_ROOM = (16384, 8192, 4096, 3072, 2048, 1792, 1536, 1024)


@offers("DEPTHWISE_CONV_2D")
def depthwise(op: Operation) -> Sequence[Kernel] | str:
    """Kernels of more and of less scratch."""
    window: Window = op.attributes["window"]
    output = twice(op)
    reason = refusal(op) or (output if isinstance(output, str) else None) or _form(window)
    if reason is not None:
        return reason
    data = op.inputs["filter"].data
    assert data is not None
    zero_point = -op.inputs["input"].zero_point * data.astype(np.int64).reshape(-1, window.output_c).sum(0)
    bias = folded_bias(op, zero_point, False)
    if isinstance(bias, str):
        return bias
    choices = {choice for choice in (_fitting(window, room) for room in _ROOM) if choice is not None}
    if not choices:
        return f"no kernel for an output of {window.output_h}x{window.output_w}"
    arguments = [_packed(window, data[0]), bias, *multiplier_tables(op)]
    kernels = []
    for rows, channels in sorted(choices, reverse=True):
        fields = {
            "window": window.fields(),
            "padding": op.inputs["input"].zero_point,
            "channels": channels,
            "rows": rows,
            "groups": _groups(window, rows),
            "output": output,
        }
        call = KernelCall(
            "tp_depthwise_conv_mve_s8",
            "tp_depthwise_mve_params",
            fields,
            [op.inputs["input"], *arguments, op.output],
        )
        kernels.append(
            Kernel(
                "mve",
                f"windows of 16 taps, {rows} rows of {channels} channels at a time",
                call,
                ("mve/tp_depthwise_conv_mve.c",),
                scratch_bytes=_scratch_bytes(window, rows, channels),
                cycles=_instructions(window, rows, channels),
                code_bytes=1500,
                table_bytes=table_bytes(arguments),
                in_order=True,
            )
        )
    return kernels


def _form(window: Window) -> str | None:
    if window.input_c != window.output_c:
        return "no kernel for a depth multiplier"
    if window.dilation_h != 1 or window.dilation_w != 1:
        return "no kernel for dilation"
    if window.kernel_h > 4 or window.kernel_w > (3 if window.stride_w == 1 else 4):
        return f"no kernel for a window of {window.kernel_h}x{window.kernel_w} at a stride of {window.stride_w}"
    if window.output_w < 2:
        return "no kernel for outputs of one column"
    return None


def _windows(window: Window) -> tuple[int, int]:
    """(windows in an output row, windows in a group of four outputs)."""
    return (-(-window.output_w // 2), 2) if window.stride_w == 1 else (window.output_w, 4)


def _groups(window: Window, rows: int) -> int:
    starts, unit = _windows(window)
    return -(-rows * starts // unit)


def _scratch_bytes(window: Window, rows: int, channels: int) -> int:
    starts, unit = _windows(window)
    row_bytes = 4 * starts * channels
    banks = min(window.stride_h, window.kernel_h)
    word_rows = sum(rows + (window.kernel_h - 1 - bank) // window.stride_h for bank in range(banks))
    front = max(16 * _groups(window, rows) + 5 * multiple(channels, 16), 4 * (unit - 1) * channels)
    return front + word_rows * row_bytes + 64 * banks


def _fitting(window: Window, room: int) -> tuple[int, int] | None:
    """(rows, channels) at a time of the fewest instructions that the room allows, or of the least scratch.

    Where rows lie over those of the input, all channels of a row are read before it is written.
    """
    blocks = [window.output_c]
    if by_planes(window):
        blocks += [block for block in range(16, window.output_c, 16) if window.output_c % block == 0]
    choices = [(rows, block) for block in blocks if (rows := _rows(window, room, block))]
    fitting = [choice for choice in choices if _scratch_bytes(window, *choice) <= room]
    if fitting:
        return min(fitting, key=lambda choice: _instructions(window, *choice))
    return min(choices, key=lambda choice: _scratch_bytes(window, *choice), default=None)


def _rows(window: Window, room: int, channels: int) -> int:
    """Output rows at a time: as equal parts of the image as the room allows, each of a group at least; 0 for none."""
    starts, unit = _windows(window)
    fitting = [n for n in range(1, window.output_h + 1) if _scratch_bytes(window, n, channels) <= room] or [1]
    for most in range(fitting[-1], window.output_h + 1):
        rows = -(-window.output_h // -(-window.output_h // most))
        last = window.output_h % rows or rows
        if min(rows, last) * starts >= unit:
            return rows
    return 0


def _packed(window: Window, filters: np.ndarray) -> CArray:
    """(KH,KW,C) as 4x4 taps of each channel; at a stride of 1 once more, moved to the right."""
    both = window.stride_w == 1
    packed = np.zeros((window.output_c, 1 + both, 4, 4), np.int8)
    for shift in range(1 + both):
        packed[:, shift, : window.kernel_h, shift : shift + window.kernel_w] = filters.transpose(2, 0, 1)
    return packed_bytes(packed)


def _instructions(window: Window, rows: int, channels: int) -> int:
    starts, unit = _windows(window)
    parts, blocks, groups = -(-window.output_h // rows), window.output_c // channels, _groups(window, rows)
    read = parts * ((rows - 1) * window.stride_h + window.kernel_h)
    kept = (parts - 1) * (window.kernel_h - 1) if window.stride_h == 1 else 0
    chunks = -(-channels // 16)
    row = 125 + 45 * _at_border(window) + starts * (15 if chunks == 1 else 25 + 9 * chunks)
    copied = kept * starts * channels // 2 + 100 * parts
    computed = parts * channels * (groups * (19 if unit == 2 else 23) + 35)
    lists = 1 if window.output_h % rows == 0 else 2 * blocks
    return blocks * ((read - kept) * row + copied + computed) + lists * 30 * groups * unit


def _at_border(window: Window) -> int:
    """How many of a row's windows of four columns are not all inside the image."""
    starts = np.arange(_windows(window)[0]) * (2 if window.stride_w == 1 else window.stride_w)
    first = np.minimum(starts, window.output_w - 2) if window.stride_w == 1 else starts
    first = first - window.pad_left
    return int(((first < 0) | (first + 3 >= window.input_w)).sum())
