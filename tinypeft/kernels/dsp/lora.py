"""CONV_2D of the `dsp` backend with a LoRA that is not merged: accumulators start from what it adds.

What an adapter adds is known only when it is there. It is limited to so many bits that whatever lies beyond clamps the
output, at every accumulator of the layer itself: that is proved here, and packing and requantisation are made for
accumulators of that range.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinypeft.ir import Operation
from tinypeft.kernels.base import Kernel, Routine, Target
from tinypeft.kernels.dsp.conv import (
    KERNEL_H_MAX,
    STRAIGHT,
    UNROLL,
    WIDEN,
    WindowRows,
    flat_fits,
    flat_rows,
    refusal,
    results_of,
)
from tinypeft.kernels.dsp.dot import Dot, dot_routine
from tinypeft.kernels.dsp.inputs import Int8Positions, RingRows
from tinypeft.kernels.dsp.packing import BLOCK, Layer, pack_layer, stream, widened_order
from tinypeft.kernels.dsp.requantize import AccumulatorRange, accumulator_range, constant_channels, outputs_of
from tinypeft.kernels.dsp.start_routine import MOST_PAIRS, start_cycles, start_routine
from tinypeft.ops.base import CArray, CFunction, KernelCall
from tinypeft.ops.weighted import LORA_OPERANDS, lora_rank, one_tap_inside
from tinypeft.ops.window import Window

#: Bits that addends may be limited to
_BITS = range(16, 24)
_REACH = 4095


def offers(op: Operation, target: Target) -> list[Kernel] | str:
    """Pointwise of stride 1, and windows over rows that are widened once."""
    del target
    if op.kind != "CONV_2D":
        return f"no kernel for a LoRA of {op.kind} that is not merged"
    window: Window = op.attributes["window"]
    reason = refusal(op, lora=True)
    if reason is not None:
        return reason
    if window.input_c != op.inputs["filter"].shape[-1]:
        return "no kernel for groups"
    if (lora_rank(op) + 1) // 2 > MOST_PAIRS:
        return f"no kernel for a rank above {2 * MOST_PAIRS}"
    found = limited_layer(op)
    if isinstance(found, str):
        return found
    layer, bits = found
    if not one_tap_inside(window):
        return _windows(op, layer, bits, window)
    contiguous = (window.input_h, window.input_w) == (window.output_h, window.output_w)
    if not contiguous or window.stride_h * window.stride_w != 1:
        return "no kernel with a LoRA for a 1x1 window with strides"
    return [_pointwise(op, layer, bits, window)]


def limited_layer(op: Operation) -> tuple[Layer, int] | str:
    """The layer for accumulators with addends of the fewest bits that suffice, and how many those are."""
    own = accumulator_range(op)
    reason = "no limit for what an adapter adds is proved to clamp the output"
    for bits in _BITS:
        limit = 1 << (bits - 1)
        clamps = outputs_of(op, (own.low + limit - 1)[:, None]), outputs_of(op, (own.high - limit)[:, None])
        ends = outputs_of(op, np.full((len(own.low), 1), 1 << 30)), outputs_of(op, np.full((len(own.low), 1), -1 << 30))
        if not all((clamp == end).all() for clamp, end in zip(clamps, ends, strict=True)):
            continue
        ranges = AccumulatorRange(own.low - limit, own.high + limit - 1)
        if constant_channels(op, ranges).any():
            return "an output channel is constant"
        layer = pack_layer(op, ranges)
        if not isinstance(layer, str):
            return layer, bits
        reason = layer
    return reason


def _pointwise(op: Operation, layer: Layer, bits: int, window: Window) -> Kernel:
    words = stream(layer, widened_order(layer.filters.reshape(window.output_c, -1)))
    positions, steps = window.output_h * window.output_w, (window.input_c + 1) // 2
    unroll = steps if steps <= STRAIGHT else UNROLL
    dot = dot_routine(Int8Positions(steps, unroll, window.input_c), results_of(op, layer), started=True)
    base, rest = split_starts(words, window.output_c)
    fields: dict[str, Any] = {"positions": positions, "output_c": window.output_c}
    fields = {"layer": fields | _table(rest, dot), "start": _start(op, base, bits), "input_c": window.input_c}
    calls = -(-positions // 2)
    return _kernel("pointwise", "tp_pointwise_lora_dsp", op, fields, bits, dot, words, 8 * steps, calls)


def _windows(op: Operation, layer: Layer, bits: int, window: Window) -> list[Kernel] | str:
    rows = WindowRows(window, window.input_c % 4 == 0)
    if 2 * rows.distance > _REACH:
        return f"positions lie {rows.distance} bytes apart, more than a load reaches"
    words = rows.words(layer)
    fields = rows.fields(op)
    one = (window.dilation_h, window.dilation_w) == (1, 1) and window.kernel_h <= KERNEL_H_MAX
    found = [_ring(op, layer, bits, rows, words, fields)] if one else []
    if flat_fits(rows, STRAIGHT):
        found.append(_flat(op, layer, bits, rows, words, fields))
    return found or "no kernel with a LoRA for such a window: its inputs lie too far apart"


def _ring(
    op: Operation, layer: Layer, bits: int, rows: WindowRows, words: np.ndarray, fields: dict[str, Any]
) -> Kernel:
    window = rows.window
    unroll = min(rows.steps, UNROLL, (_REACH - rows.distance) // 4)
    in_line = window.kernel_h * min(rows.steps, 2 * unroll) <= STRAIGHT
    inputs = RingRows(window.kernel_h, rows.steps, unroll, not in_line, rows.distance)
    dot = dot_routine(inputs, results_of(op, layer), started=True)
    base, rest = split_starts(words, window.output_c)
    fields = {"layer": fields | _table(rest, dot), "start": _start(op, base, bits)}
    scratch = rows.ring_scratch_bytes
    calls = window.output_h * -(-window.output_w // 2)
    form = f"window of {window.kernel_h}x{window.kernel_w}"
    return _kernel(form, "tp_conv_lora_dsp", op, fields, bits, dot, words, scratch, calls, rows.cycles)


def _flat(
    op: Operation, layer: Layer, bits: int, rows: WindowRows, words: np.ndarray, fields: dict[str, Any]
) -> Kernel:
    window = rows.window
    flat = flat_rows(rows)
    dot = dot_routine(flat.inputs, results_of(op, layer), started=True)
    base, rest = split_starts(words, window.output_c)
    fields = fields | {"rows": flat.held, "together": flat.together} | _table(rest, dot)
    fields = {"layer": fields, "start": _start(op, base, bits), "advance": (3 - flat.together) * rows.distance // 2}
    pairs = window.output_w if flat.together == 2 else -(-window.output_w // 2)
    calls = -(-window.output_h // flat.together) * pairs
    form = f"window of {window.kernel_h}x{window.kernel_w}, in line"
    cycles = rows.cycles + flat.moved * rows.pitch * 4
    return _kernel(form, "tp_conv_flat_lora_dsp", op, fields, bits, dot, words, flat.scratch_bytes, calls, cycles)


def split_starts(words: np.ndarray, output_c: int) -> tuple[np.ndarray, np.ndarray]:
    """What sums of each block start from, (blocks, 4), and the words without that."""
    blocks = words.reshape(-(-output_c // BLOCK), -1)
    return blocks[:, :4].reshape(-1), blocks[:, 4:].reshape(-1)


def _table(words: np.ndarray, dot: Dot) -> dict[str, Any]:
    return {"word_count": len(words), "words": CArray("int32_t", words, "words"), "dot": CFunction(dot.routine.name)}


def _start(op: Operation, base: np.ndarray, bits: int) -> dict[str, Any]:
    rank = lora_rank(op)
    return {
        "blocks": len(base) // 4, "output_c": op.output.shape[-1], "rank": rank, "pairs": (rank + 1) // 2,
        "limit": 1 << (bits - 1), "base": CArray("int32_t", base, "base"),
        "routine": CFunction(_routine(op, bits).name),
    }  # fmt: skip


def _routine(op: Operation, bits: int) -> Routine:
    return start_routine((lora_rank(op) + 1) // 2, bits)


def _kernel(
    form: str,
    function: str,
    op: Operation,
    fields: dict[str, Any],
    bits: int,
    dot: Dot,
    words: np.ndarray,
    scratch_bytes: int,
    calls: int,
    cycles: int = 0,
) -> Kernel:
    routine, pairs = _routine(op, bits), (lora_rank(op) + 1) // 2
    channels = op.output.shape[-1]
    blocks = -(-channels // BLOCK)
    each = dot.cycles(1, channels) + start_cycles(pairs, blocks) + 70
    arguments = [op.inputs["input"], *(op.inputs[name] for name in LORA_OPERANDS), op.output]
    return Kernel(
        backend="dsp",
        form=f"{form} with a LoRA, 4 channels x 2 positions",
        call=KernelCall(f"{function}_s8", f"{function}_params", fields, arguments),
        sources=("dsp/tp_conv_lora_dsp.c", f"dsp/{WIDEN}"),
        routines=(dot.routine, routine),
        scratch_bytes=blocks * (32 + 16 * (pairs + 2)) + scratch_bytes,
        cycles=cycles + calls * each + channels * (20 + 12 * pairs),
        code_bytes=dot.routine.nbytes + routine.nbytes + 700,
        table_bytes=words.nbytes,
        in_order=True,
    )
