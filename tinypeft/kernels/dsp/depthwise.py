"""DEPTHWISE_CONV_2D on planes of int16: through a ring of rows, as whole planes, or with weights from memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinypeft.ir import Operation
from tinypeft.kernels.base import Kernel, Routine, Target
from tinypeft.kernels.dsp.depthwise_held import COMPACT_BLOCKS, FAST_BLOCKS, HeldRoutine, Planes
from tinypeft.kernels.dsp.depthwise_loaded import LoadedRoutine, loaded_taps
from tinypeft.kernels.dsp.rescale import Rescale, channel_weights, folded_bias, layer_rescale
from tinypeft.kernels.dsp.taps import pack_weights
from tinypeft.kernels.dsp.widen_code import WidenRoutine
from tinypeft.ops.base import CArray, CFunction, KernelCall
from tinypeft.ops.window import Window

SOURCES = ("dsp/tp_depthwise_dsp.c",)
#: Channels that are whole planes at the same time.
TOGETHER = 4
#: Bytes of tp_depthwise_dsp.c as far as one of its kernels needs it, about.
DRIVER_BYTES = 400
#: Field of a window -> the one that takes its place where height and width change places.
_TURNED = {
    name: other
    for pair in (
        ("input_h", "input_w"), ("output_h", "output_w"), ("kernel_h", "kernel_w"), ("stride_h", "stride_w"),
        ("dilation_h", "dilation_w"), ("pad_top", "pad_left"),
    )
    for name, other in (pair, pair[::-1])
}  # fmt: skip


def offers(op: Operation, target: Target) -> list[Kernel] | str:
    """Its kernels for a depthwise convolution, or why there is none."""
    if "multiplier" in op.inputs or "trained_bias" in op.attributes or op.inputs["filter"].data is None:
        return "no kernel for a depthwise convolution whose constants change at run time"
    window = _window(op)
    if window.output_c > 4095 or window.stride_w > 31:
        return "no kernel for more than 4095 channels or strides above 31"
    rescale = layer_rescale(op)
    if isinstance(rescale, str):
        return f"no kernel: {rescale}"
    kernels: list[Kernel] = []
    for blocks in (FAST_BLOCKS, COMPACT_BLOCKS):
        found = _ring(op, rescale, blocks), _whole_planes(op, rescale, blocks)
        kernels += [kernel for kernel in found if kernel is not None]
    return kernels or [_segments(op, rescale)]


def _ring(op: Operation, rescale: Rescale, blocks: int) -> Kernel | None:
    window = _window(op)
    multiplier = window.output_c // window.input_c
    planes = Planes(window.kernel_h, _pitch(window, window.kernel_w))
    channels = window.output_c if multiplier == 1 else 1
    code = HeldRoutine(
        planes, window.kernel_h, window.kernel_w, window.stride_h, window.stride_w, window.output_w, 1, channels,
        window.output_c, True, rescale, blocks,
    )  # fmt: skip
    if window.dilation_h > 1 or window.dilation_w > 1 or not code.fits:
        return None
    widen = _ring_widening(window, planes)
    calls = window.output_h * (1 if multiplier == 1 else window.output_c)
    cycles = _ring_cycles(window, planes, widen) + calls * (code.cycles + 15)
    form = f"ring of {window.kernel_h} rows, weights in registers{_size(blocks)}"
    scratch = planes.channel_bytes * window.input_c
    return _kernel(
        op, form, "tp_depthwise_ring_dsp", "tp_depthwise_held_params", _held_fields(op, code, widen),
        _routines(code, widen), scratch, cycles, True,
    )  # fmt: skip


def _whole_planes(op: Operation, rescale: Rescale, blocks: int) -> Kernel | None:
    window = _window(op)
    planes = Planes((window.output_h - 1) * window.stride_h + window.kernel_h, _pitch(window, window.kernel_w))
    code = HeldRoutine(
        planes, window.kernel_h, window.kernel_w, window.stride_h, window.stride_w, window.output_w, window.output_h,
        TOGETHER, window.output_c, False, rescale, blocks,
    )  # fmt: skip
    dilated = window.dilation_h > 1 or window.dilation_w > 1
    if dilated or window.input_c != window.output_c or window.input_c % TOGETHER or not code.fits:
        return None
    _, columns, left = _columns(window)
    row_bytes = window.input_w * window.input_c
    widen = WidenRoutine(window.input_c, columns, left % 2 == 1, planes.channel_bytes, row_bytes, 2 * planes.pitch)
    scratch = planes.channel_bytes * TOGETHER
    rows = min(planes.rows, window.input_h)
    cycles = scratch + 80 + window.input_c // TOGETHER * (rows * widen.cycles + code.cycles + 70)
    form = f"{TOGETHER} planes, weights in registers{_size(blocks)}"
    return _kernel(
        op, form, "tp_depthwise_planes_dsp", "tp_depthwise_held_params", _held_fields(op, code, widen),
        _routines(code, widen), scratch, cycles, False,
    )  # fmt: skip


def _held_fields(op: Operation, code: HeldRoutine, widen: WidenRoutine | None) -> dict[str, Any]:
    window = _window(op)
    packed = pack_weights(code.single.weights, _filters(op, code.rescale)).reshape(window.output_c, -1)
    table = np.concatenate([packed, _channel_constants(op, code.rescale)], axis=1)
    return _fields(op, code.planes, widen, table) | {"routine": CFunction(code.routine.name)}


def _segments(op: Operation, rescale: Rescale) -> Kernel:
    window = _window(op)
    taps = loaded_taps(window.kernel_w, window.stride_w, window.dilation_w)
    row_segments = -(-window.kernel_w // taps)
    planes = Planes((window.kernel_h - 1) * window.dilation_h + 1, _pitch(window, taps * row_segments))
    count = window.kernel_h * row_segments
    code = LoadedRoutine(taps, count, window.stride_w, window.output_w, window.output_c, rescale)
    padded = np.pad(_filters(op, rescale), ((0, 0), (0, 0), (0, taps * row_segments - window.kernel_w)))
    packed = pack_weights(code.block.weights, padded.reshape(window.output_c, count, taps))
    table = np.concatenate([_channel_constants(op, rescale), packed.reshape(window.output_c, -1)], axis=1)
    widen = _ring_widening(window, planes)
    fields = _fields(op, planes, widen, table) | {
        "routine": CFunction(code.routine.name),
        "kernel_h": window.kernel_h,
        "dilation_h": window.dilation_h,
        "row_segments": row_segments,
        "segment_step": taps * window.dilation_w,
    }
    pointing = window.kernel_h * 20 + count * 7
    cycles = _ring_cycles(window, planes, widen) + window.output_h * window.output_c * (code.cycles + pointing + 30)
    form = f"ring of {planes.rows} rows, weights from memory"
    scratch = 4 * count + planes.channel_bytes * window.input_c + 4
    return _kernel(
        op, form, "tp_depthwise_segments_dsp", "tp_depthwise_loaded_params", fields, _routines(code, widen), scratch,
        cycles, True,
    )  # fmt: skip


def _ring_widening(window: Window, planes: Planes) -> WidenRoutine | None:
    """The routine that fills a row of a ring; None where there are too few channels for it."""
    _, columns, left = _columns(window)
    if window.input_c < TOGETHER or not columns:
        return None
    row_step = TOGETHER * planes.channel_bytes
    return WidenRoutine(window.input_c, columns, left % 2 == 1, planes.channel_bytes, TOGETHER, row_step)


def _ring_cycles(window: Window, planes: Planes, widen: WidenRoutine | None) -> int:
    """Of filling a ring, first with padding and then row after row."""
    taken = np.unique(np.arange(window.output_h)[:, None] * window.stride_h + np.arange(planes.rows)) - window.pad_top
    inside = int(((taken >= 0) & (taken < window.input_h)).sum())
    columns = _columns(window)[1]
    row = 70 + 9 * window.input_c * columns
    if widen is not None:
        unaligned = 0 if window.input_c % 4 == 0 else columns * 3
        row = 70 + -(-window.input_c // TOGETHER) * (widen.cycles + unaligned)
    padding = (len(taken) - inside) * window.input_c * (7 * columns + 10)
    return planes.channel_bytes * window.input_c + padding + inside * row + 60 * window.output_h


def _size(blocks: int) -> str:
    return "" if blocks == FAST_BLOCKS else ", compact"


def _routines(code: HeldRoutine | LoadedRoutine, widen: WidenRoutine | None) -> tuple[Routine, ...]:
    return (code.routine, *(() if widen is None else (widen.routine,)))


def _kernel(
    op: Operation, form: str, function: str, params: str, fields: dict[str, Any], routines: tuple[Routine, ...],
    scratch: int, cycles: int, in_order: bool,
) -> Kernel:  # fmt: skip
    call = KernelCall(function, params, fields, [op.inputs["input"], op.output])
    return Kernel(
        "dsp", form, call, SOURCES, routines, scratch, cycles, sum(r.nbytes for r in routines) + DRIVER_BYTES,
        fields["table"].values.nbytes, in_order, () if in_order else ("input",),
    )  # fmt: skip


def _filters(op: Operation, rescale: Rescale) -> np.ndarray:
    """int64 (Cout, KH, KW) of the window that is computed, scaled."""
    window: Window = op.attributes["window"]
    filters = (channel_weights(op) * rescale.scale[:, None]).reshape(-1, window.kernel_h, window.kernel_w)
    return filters if _window(op) is window else filters.swapaxes(1, 2)


def _channel_constants(op: Operation, rescale: Rescale) -> np.ndarray:
    """int32 (Cout, 3): bias, multiplier and addend."""
    bias = folded_bias(op) * rescale.scale
    return np.stack([bias, rescale.multiplier, rescale.addend], axis=1).astype(np.int32)


def _fields(op: Operation, planes: Planes, widen: WidenRoutine | None, table: np.ndarray) -> dict[str, Any]:
    window = _window(op)
    first, columns, left = _columns(window)
    zero_point = op.inputs["input"].zero_point & 0xFFFF
    padding = np.array([zero_point | zero_point << 16], np.uint32).view(np.int32)[0]
    return {
        "planes": {
            "input_h": window.input_h,
            "input_c": window.input_c,
            "row_bytes": window.input_w * window.input_c,
            "first": first * window.input_c,
            "columns": columns,
            "left": left,
            "pad_top": window.pad_top,
            "padding": int(padding),
            "rows": planes.rows,
            "pitch": planes.pitch,
            "widen": None if widen is None else CFunction(widen.routine.name),
        },
        "output_h": window.output_h,
        "output_row_bytes": window.output_w * window.output_c,
        "stride_h": window.stride_h,
        "depth_multiplier": window.output_c // window.input_c,
        "table_words": table.shape[1],
        "table": CArray("int32_t", table, "table"),
    }


def _window(op: Operation) -> Window:
    """The window of `op`; of an image of one column it is that of the same bytes as one row."""
    window: Window = op.attributes["window"]
    if window.input_w > 1 or window.output_w > 1:
        return window
    turned = {name: getattr(window, _TURNED.get(name, name)) for name in window.fields()}
    return Window(**turned)


def _reach(window: Window) -> int:
    """Columns from the first tap of the first output to the last of the last."""
    return (window.output_w - 1) * window.stride_w + (window.kernel_w - 1) * window.dilation_w + 1


def _columns(window: Window) -> tuple[int, int, int]:
    """(first column of the image that is read, how many are, padding in front of them)."""
    first = max(-window.pad_left, 0)
    end = min(window.input_w, _reach(window) - window.pad_left)
    return first, max(end - first, 0), max(window.pad_left, 0)


def _pitch(window: Window, taps: int) -> int:
    """Halfwords of a row of a plane that is read by so many taps, padding included; even."""
    last = (window.output_w - 1) * window.stride_w + (taps - 1) * window.dilation_w + 1
    return -(-max(last, _reach(window)) // 2) * 2
