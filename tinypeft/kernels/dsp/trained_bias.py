"""CONV_2D and FULLY_CONNECTED of the `dsp` backend whose bias is trained: sums start from the bias that is there.

As with a LoRA, a change of the bias is limited to so many bits that whatever lies beyond clamps the output.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinypeft.ir import Operation
from tinypeft.kernels.base import Kernel, Target
from tinypeft.kernels.dsp.conv import KERNEL_H_MAX, STRAIGHT, UNROLL, WIDEN, WindowRows, refusal, results_of
from tinypeft.kernels.dsp.dense import dense_routine
from tinypeft.kernels.dsp.dot import STARTED, Dot, dot_routine
from tinypeft.kernels.dsp.inputs import Int8Positions, RingRows
from tinypeft.kernels.dsp.limited import limited_layer
from tinypeft.kernels.dsp.packing import BLOCK, Layer, split_starts, stream, widened_order
from tinypeft.ops.base import CArray, CFunction, KernelCall
from tinypeft.ops.fully_connected import dense_window
from tinypeft.ops.weighted import BiasState, one_tap_inside
from tinypeft.ops.window import Window

_REACH = 4095
#: Cycles around a pair of positions, a block of what sums start from, a row
_PAIR, _BLOCK, _ROW = 40, 100, 30


def offers(op: Operation, target: Target) -> list[Kernel] | str:
    """Dense layers, pointwise ones of stride 1, and windows over a ring of rows."""
    del target
    window = dense_window(op) if op.kind == "FULLY_CONNECTED" else op.attributes["window"]
    reason = refusal(op, trained_bias=True)
    if reason is not None:
        return reason
    if window.input_c != op.inputs["filter"].shape[-1]:
        return "no kernel for groups"
    found = limited_layer(op)
    if isinstance(found, str):
        return found
    layer, bits = found.layer, found.bits
    if op.kind == "FULLY_CONNECTED":
        return [_dense(op, layer, bits, window)]
    contiguous = (window.input_h, window.input_w) == (window.output_h, window.output_w)
    if one_tap_inside(window) and contiguous and window.input_c <= _REACH:
        return [_pointwise(op, layer, bits, window)]
    return _window(op, layer, bits, window)


def _dense(op: Operation, layer: Layer, bits: int, window: Window) -> Kernel:
    words = stream(layer, widened_order(layer.filters.reshape(window.output_c, -1)))
    routine, call_cycles, block_cycles = dense_routine(op, layer, window, min(8, window.input_c // 4), started=True)
    base, rest = split_starts(words, window.output_c)
    fields = {"positions": window.input_h, "input_c": window.input_c, "output_c": window.output_c}
    fields |= _table(rest) | {"dense": CFunction(routine.name)}
    blocks = -(-window.output_c // BLOCK)
    cycles = 40 + blocks * _BLOCK + window.input_h * (call_cycles + _ROW + blocks * block_cycles)
    return Kernel(
        backend="dsp",
        form="dense with a trained bias, 4 channels",
        call=_call(op, "tp_dense_bias_dsp", {"layer": fields, "start": _start(op, layer, bits, base)}),
        sources=("dsp/tp_conv_bias_dsp.c", f"dsp/{WIDEN}"),
        routines=(routine,),
        scratch_bytes=16 * blocks,
        cycles=cycles,
        code_bytes=routine.nbytes,
        table_bytes=words.nbytes + 4 * window.output_c,
        in_order=True,
    )


def _pointwise(op: Operation, layer: Layer, bits: int, window: Window) -> Kernel:
    words = stream(layer, widened_order(layer.filters.reshape(window.output_c, -1)))
    positions, steps = window.output_h * window.output_w, (window.input_c + 1) // 2
    unroll = steps if steps <= STRAIGHT else UNROLL
    dot = dot_routine(Int8Positions(steps, unroll, window.input_c), results_of(op, layer), STARTED)
    base, rest = split_starts(words, window.output_c)
    fields: dict[str, Any] = {"positions": positions, "output_c": window.output_c, "dot": CFunction(dot.routine.name)}
    fields = {"layer": fields | _table(rest), "start": _start(op, layer, bits, base), "input_c": window.input_c}
    calls = -(-positions // 2)
    return _kernel("pointwise", _call(op, "tp_pointwise_bias_dsp", fields), dot, words, 8 * steps, calls, window)


def _window(op: Operation, layer: Layer, bits: int, window: Window) -> list[Kernel] | str:
    rows = WindowRows(window, window.input_c % 4 == 0)
    if 2 * rows.distance > _REACH:
        return f"positions lie {rows.distance} bytes apart, more than a load reaches"
    if (window.dilation_h, window.dilation_w) != (1, 1) or window.kernel_h > KERNEL_H_MAX:
        return "no kernel with a trained bias for such a window"
    words = rows.words(layer)
    unroll = min(rows.steps, UNROLL, (_REACH - rows.distance) // 4)
    in_line = window.kernel_h * min(rows.steps, 2 * unroll) <= STRAIGHT
    inputs = RingRows(window.kernel_h, rows.steps, unroll, not in_line, rows.distance)
    dot = dot_routine(inputs, results_of(op, layer), STARTED)
    base, rest = split_starts(words, window.output_c)
    fields = rows.fields(op) | {"dot": CFunction(dot.routine.name)}
    call = _call(op, "tp_conv_bias_dsp", {"layer": fields | _table(rest), "start": _start(op, layer, bits, base)})
    scratch = rows.ring_scratch_bytes
    calls = window.output_h * -(-window.output_w // 2)
    around = rows.cycles + window.output_h * (30 + 30 * window.kernel_h)
    form = f"window of {window.kernel_h}x{window.kernel_w}"
    return [_kernel(form, call, dot, words, scratch, calls, window, around)]


def _start(op: Operation, layer: Layer, bits: int, base: np.ndarray) -> dict[str, Any]:
    state: BiasState = op.attributes["trained_bias"]
    return {
        "blocks": len(base) // 4, "output_c": op.output.shape[-1], "limit": 1 << (bits - 1),
        "plain": int(layer.requantize.plain), "base": CArray("int32_t", base, "base"),
        "bias": CArray("int32_t", (state.base + state.folded).astype(np.int32), "bias"),
    }  # fmt: skip


def _table(words: np.ndarray) -> dict[str, Any]:
    return {"word_count": len(words), "words": CArray("int32_t", words, "words")}


def _call(op: Operation, function: str, fields: dict[str, Any]) -> KernelCall:
    arguments = [op.inputs["input"], op.inputs["bias"], op.output]
    return KernelCall(f"{function}_s8", f"{function}_params", fields, arguments)


def _kernel(
    form: str,
    call: KernelCall,
    dot: Dot,
    words: np.ndarray,
    scratch_bytes: int,
    calls: int,
    window: Window,
    around: int = 0,
) -> Kernel:
    blocks = -(-window.output_c // BLOCK)
    return Kernel(
        backend="dsp",
        form=f"{form} with a trained bias, 4 channels x 2 positions",
        call=call,
        sources=("dsp/tp_conv_bias_dsp.c", f"dsp/{WIDEN}"),
        routines=(dot.routine,),
        scratch_bytes=32 * blocks + scratch_bytes,
        cycles=around + 60 + blocks * _BLOCK + calls * (dot.cycles(1, window.output_c) + _PAIR),
        code_bytes=dot.routine.nbytes,
        table_bytes=words.nbytes + 4 * window.output_c,
        in_order=True,
    )
