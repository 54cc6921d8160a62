"""Backward kernels of the dsp backend: gradients of inputs, through clamps, and of adapters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from tinypeft.ir import Operation, Tensor
from tinypeft.kernels.base import Kernel, Target
from tinypeft.kernels.dsp import down_routine, plane_routine
from tinypeft.kernels.dsp.column_routine import POSITIONS, Columns, packed_filter
from tinypeft.ops.base import CArray, CFunction, CStruct, KernelCall
from tinypeft.ops.weighted import one_tap_inside
from tinypeft.ops.window import Window

Offer = list[Kernel] | str
#: about what the planes of a band of rows may take
_BAND_BYTES = 2048
#: about what more rows of an image than a window needs may take
_ROW_BYTES = 512
#: the most that a padded image and its mantissas may take
_IMAGE_BYTES = 4096


def gradients_of_16_bits(op: Operation) -> bool:
    """Whether no gradient that `op` reads or writes has mantissas of 8 bits."""
    return all(t.dtype != "bfp8" for t in (*op.inputs.values(), *op.outputs.values()))


def conv_backward_input(op: Operation, target: Target) -> Offer:
    """CONV_2D_BACKWARD_INPUT: four positions share a pass over two channels of the filter."""
    window: Window = op.attributes["window"]
    filters: Tensor = op.inputs["filter"]
    rows, channels = window.kernel_h * window.kernel_w * window.output_c, window.input_c
    if not gradients_of_16_bits(op):
        return "no kernel for gradients of 8 bits"
    if "first_channel" in op.attributes or filters.shape[-1] != channels:
        return "no kernel for groups"
    positions = window.input_h * window.input_w
    if positions < POSITIONS:
        return f"no kernel for less than {POSITIONS} positions"
    adds = "addend" in op.inputs
    forms = {Columns(rows, channels, adds): "looped"}
    if rows > 16:
        forms[Columns(rows, channels, adds, straight=True)] = "straight"
    if filters.data is not None:
        forms[Columns(rows, channels, adds, straight=True, packed=True)] = "straight, packed"
    found = [_column_kernel(op, columns, positions, name) for columns, name in forms.items() if columns.fits]
    return found or f"no kernel for {channels} channels, odd or more than 682"


def _column_kernel(op: Operation, columns: Columns, positions: int, name: str) -> Kernel:
    call = op.op.call(op)
    assert call is not None
    filters: Tensor = op.inputs["filter"]
    routine = columns.routine()
    fields: dict[str, Any] = {"conv": call.fields, "routine": CFunction(routine.name), "packed": None}
    table = 0
    if columns.packed:
        assert filters.data is not None
        packed = packed_filter(filters.data.reshape(columns.rows, columns.channels))
        fields["packed"], table = CArray("int32_t", packed.view(np.int32), "packed"), packed.nbytes
    gather = (5 if columns.rows == op.attributes["window"].output_c else 16) * columns.rows
    scratch = 2 * POSITIONS * (columns.rows + columns.rows % 2 + columns.channels)
    return Kernel(
        backend="dsp",
        form=f"{POSITIONS} positions x 2 channels, {name}",
        call=KernelCall("tp_conv_backward_input_dsp_s16", "tp_conv_backward_dsp_params", fields, call.arguments),
        sources=("dsp/tp_conv_backward_dsp.c", "tp_conv_backward.c"),
        routines=(routine,),
        scratch_bytes=scratch,
        cycles=-(-positions // POSITIONS) * (columns.cycles + gather),
        code_bytes=routine.nbytes + 700,
        table_bytes=table,
        in_order=True,
    )


def depthwise_backward_input(op: Operation, target: Target) -> Offer:
    """DEPTHWISE_CONV_2D_BACKWARD_INPUT: two channels are made planes, a band of rows at a time."""
    window: Window = op.attributes["window"]
    if not gradients_of_16_bits(op):
        return "no kernel for gradients of 8 bits"
    if (window.kernel_h, window.kernel_w, window.dilation_h, window.dilation_w) != (3, 3, 1, 1):
        return f"no kernel for a dilated or {window.kernel_h}x{window.kernel_w} window"
    if window.output_c != window.input_c or window.input_c % 2:
        return "no kernel for a depth multiplier or an odd number of channels"
    if not (0 <= window.pad_top <= 2 and 0 <= window.pad_left <= 2):
        return "no kernel for windows that begin inside the image, or outside of it"
    if not plane_routine.fits(window.input_w, window.input_c):
        return f"no kernel for {window.input_w} positions of {window.input_c} channels a row"
    call = op.op.call(op)
    assert call is not None
    width = plane_routine.plane_width(window.input_w)
    band = min(window.input_h, max(4, _BAND_BYTES // (4 * width) - 2))
    routine = plane_routine.plane_routine(window.input_w, window.input_c)
    fields = {"conv": call.fields, "band": band, "routine": CFunction(routine.name)}
    row = plane_routine.plane_cycles(window.input_w)
    elements = window.input_h * window.input_w * window.input_c
    return [
        Kernel(
            backend="dsp",
            form="planes of two channels",
            call=KernelCall(
                "tp_depthwise_conv_backward_input_dsp_s16",
                "tp_depthwise_backward_dsp_params",
                fields,
                call.arguments,
            ),
            sources=("dsp/tp_depthwise_backward_dsp.c",),
            routines=(routine,),
            scratch_bytes=4 * (band + 2) * width,
            cycles=window.input_c * (window.input_h * row + 60) + 16 * elements,
            code_bytes=routine.nbytes + 600,
            in_order=True,
        )
    ]


def requantize_backward(op: Operation, target: Target) -> Offer:
    """REQUANTIZE_BACKWARD with a clamp: mantissas in pairs."""
    call = op.op.call(op)
    assert call is not None
    channels = op.output.shape[-1] if op.output.shape else 1
    if not gradients_of_16_bits(op):
        return "no kernel for gradients of 8 bits"
    if not ("output" in op.inputs or "mask" in op.inputs) or "multiplier" in op.inputs:
        return "no kernel without a clamp or with scales that are trained"
    together = 8 if "mask" in op.inputs else 4
    if channels % together:
        return f"no kernel for {channels} channels, no multiple of {together}"
    return [_pairwise(call, "tp_requantize_backward_dsp.c", op.output.size, 11 if "mask" in op.inputs else 15, 900)]


def clamp_mask(op: Operation, target: Target) -> Offer:
    """CLAMP_MASK: four outputs in a word."""
    if op.output.size % 8:
        return f"no kernel for {op.output.size} outputs, no multiple of 8"
    call = op.op.call(op)
    assert call is not None
    return [_pairwise(call, "tp_clamp_mask_dsp.c", op.output.size, 3, 120)]


def _pairwise(call: KernelCall, source: str, elements: int, cycles: int, code_bytes: int) -> Kernel:
    """A kernel of `source` in the place of the portable one; cycles an element."""
    stem, _, suffix = call.function.rpartition("_")
    return Kernel(
        backend="dsp",
        form="in pairs",
        call=replace(call, function=f"{stem}_dsp_{suffix}"),
        sources=(f"dsp/{source}",),
        cycles=cycles * elements,
        code_bytes=code_bytes,
        in_order=True,
    )


def lora_backward_hidden(op: Operation, target: Target) -> Offer:
    """LORA_BACKWARD_HIDDEN: two channels times four columns of B, which are packed first."""
    channels, rank = op.inputs["lora_B"].shape
    if not gradients_of_16_bits(op):
        return "no kernel for gradients of 8 bits"
    if channels % 2:
        return f"no kernel for an odd number of channels, {channels}"
    call = op.op.call(op)
    assert call is not None
    positions = op.output.size // rank
    return [
        Kernel(
            backend="dsp",
            form="2 channels x 4 columns",
            call=replace(call, function="tp_lora_backward_hidden_dsp_s16"),
            sources=("dsp/tp_lora_backward_dsp.c",),
            scratch_bytes=10 * channels,
            cycles=positions * -(-rank // 4) * (9 * channels + 50) + channels * rank * 5,
            code_bytes=800,
        )
    ]


def lora_down(op: Operation, target: Target) -> Offer:
    """LORA_DOWN: four rows of A, which is widened first, share a pass over the input."""
    window: Window = op.attributes["window"]
    rank, pointwise = window.output_c, one_tap_inside(window)
    if window.dilation_w != 1 or (pointwise and window.input_c % 4):
        return "no kernel for dilated windows, or 1x1 ones of channels that are no multiple of 4"
    call = op.op.call(op)
    assert call is not None
    line = -(-window.kernel_w * window.input_c // 4) * 4
    size = window.kernel_h * line
    pitch = 0 if pointwise else _pitch(window)
    extent = (window.kernel_h - 1) * window.dilation_h + 1
    count = _rows(window)
    rows = 0 if pointwise else extent + min(count - extent, -(-_ROW_BYTES // pitch))
    shape = window.kernel_h, line, window.dilation_h * pitch, window.stride_w * window.input_c
    routines = (down_routine.down_routine(*shape, rank),) if rank >= 4 and down_routine.fits(*shape) else ()
    four = CFunction(routines[0].name) if routines else None
    fields = {"down": call.fields, "four": four, "pitch": pitch, "rows": rows}
    each = down_routine.down_cycles(window.kernel_h, line) // 2 * (rank // 4) + (9 * size // 4) * (rank % 4) + 10
    each = each if routines else (6 * size + 9 * window.kernel_h) * (rank // 4) + (9 * size // 4) * (rank % 4) + 40
    return [
        Kernel(
            backend="dsp",
            form="4 rows x 4 channels",
            call=replace(call, function="tp_lora_down_dsp_s8", params="tp_lora_down_dsp_params", fields=fields),
            sources=("dsp/tp_lora_down_dsp.c", "dsp/tp_padded_row_dsp.c"),
            routines=routines,
            scratch_bytes=rank * (4 + 2 * size) + rows * pitch,
            cycles=window.output_h * window.output_w * each
            + 5 * rank * size
            + (0 if pointwise else count * (150 + pitch) + window.output_h * 250),
            code_bytes=900 + sum(r.nbytes for r in routines),
        )
    ]


def update_rows(op: Operation, target: Target) -> Offer:
    """UPDATE_ROWS of a LoRA's matrices: the sums over positions of a row, four at a time."""
    producer: Operation = op.attributes["gradient"]
    call = op.op.call(op)
    assert call is not None
    portable = call.fields["gradient"].name
    if not gradients_of_16_bits(producer):
        return "no kernel for gradients of 8 bits"
    d_output = producer.inputs["d_output"]
    positions = d_output.size // d_output.shape[-1]
    size = op.inputs["master"].size
    gradient, fields, more = "", call.fields, 0
    if portable == "tp_lora_gradient_b_s32" and op.inputs["master"].shape[-1] % 4 == 0:
        gradient, cycles = "tp_lora_gradient_b_dsp_s32", 4 * positions * size
    elif portable == "tp_filter_gradient_s32" and _whole_pointwise(producer):
        gradient, cycles = "tp_pointwise_gradient_dsp_s32", 15 * positions * size // 4
    elif portable == "tp_filter_gradient_s32" and (window := _window(producer)) is not None:
        gradient, cycles, pitch = "tp_window_gradient_dsp_s32", 7 * positions * size, _pitch(window)
        more = _rows(window) * pitch + 4 * window.output_h * (-(-window.output_w // 2))
        held: CStruct = fields["gradient_params"]
        padded = CStruct("tp_window_gradient_dsp_params", {"filter": held.fields, "pitch": pitch}, held.name)
        fields = fields | {"gradient_params": padded}
    if not gradient or more > _IMAGE_BYTES:
        return f"no kernel in the place of {portable}"
    return [
        Kernel(
            backend="dsp",
            form="four sums",
            call=replace(call, fields=fields | {"gradient": CFunction(gradient)}),
            sources=(*op.op.sources(op), "dsp/tp_lora_backward_dsp.c", "dsp/tp_padded_row_dsp.c"),
            scratch_bytes=op.op.scratch_bytes(op) + more,
            cycles=cycles + 40 * size,
            code_bytes=400,
        )
    ]


def _window(producer: Operation) -> Window | None:
    """The window of a filter's gradient, where it has no dilated columns and reads all channels."""
    window: Window = producer.attributes["window"]
    return window if window.dilation_w == 1 and "first_channel" not in producer.attributes else None


def _pitch(window: Window) -> int:
    """Elements of a padded row, a multiple of 4; what four inputs of an odd position more may reach lies within."""
    read = (window.output_w + window.output_w % 2 - 1) * window.stride_w + window.kernel_w
    return -(-read * window.input_c // 4) * 4 + 4


def _rows(window: Window) -> int:
    """Rows of the padded image that positions span."""
    return (window.output_h - 1) * window.stride_h + (window.kernel_h - 1) * window.dilation_h + 1


def _whole_pointwise(producer: Operation) -> bool:
    """Whether a filter's gradient is that of a 1x1 window, of stride 1, over all channels, a multiple of 4."""
    window: Window = producer.attributes["window"]
    same = (window.input_h, window.input_w) == (window.output_h, window.output_w)
    one = window.kernel_h == window.kernel_w == window.stride_h == window.stride_w == 1
    inside = not (window.pad_top or window.pad_left)
    return same and one and inside and window.input_c % 4 == 0 and "first_channel" not in producer.attributes


#: operator -> its kernels, or why there are none
OFFERS: dict[str, Callable[[Operation, Target], Offer]] = {
    "CLAMP_MASK": clamp_mask,
    "CONV_2D_BACKWARD_INPUT": conv_backward_input,
    "DEPTHWISE_CONV_2D_BACKWARD_INPUT": depthwise_backward_input,
    "LORA_BACKWARD_HIDDEN": lora_backward_hidden,
    "LORA_DOWN": lora_down,
    "REQUANTIZE_BACKWARD": requantize_backward,
    "UPDATE_ROWS": update_rows,
}
