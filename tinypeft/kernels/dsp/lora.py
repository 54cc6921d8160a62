"""CONV_2D of the `dsp` backend with a LoRA that is not merged: accumulators start from what it adds."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinypeft.ir import Operation
from tinypeft.kernels.base import Kernel, Target
from tinypeft.kernels.dsp.conv import (
    KERNEL_H_MAX,
    STRAIGHT,
    UNROLL,
    WIDEN,
    Flat,
    WindowRows,
    flat_fits,
    flat_rows,
    refusal,
    results_of,
)
from tinypeft.kernels.dsp.dot import Dot, dot_routine
from tinypeft.kernels.dsp.inputs import Int8Positions, RingRows
from tinypeft.kernels.dsp.limited import Limited, limited_layer
from tinypeft.kernels.dsp.lora_start import IN_REGISTERS, MOST, lora_start, table_bytes
from tinypeft.kernels.dsp.packing import BLOCK, stream, widened_order
from tinypeft.ops.activation import output_range
from tinypeft.ops.base import CArray, CFunction, CStruct, KernelCall
from tinypeft.ops.weighted import LORA_OPERANDS, layer_bias, lora_rank, multipliers, one_tap_inside
from tinypeft.ops.window import Window

_REACH = 4095


def offers(op: Operation, target: Target) -> list[Kernel] | str:
    """Pointwise of stride 1, and all other windows over rows that are widened once."""
    del target
    if op.kind != "CONV_2D":
        return f"no kernel for a LoRA of {op.kind} that is not merged"
    window: Window = op.attributes["window"]
    reason = refusal(op, lora=True)
    if reason is not None:
        return reason
    if window.input_c != op.inputs["filter"].shape[-1]:
        return "no kernel for groups"
    if lora_rank(op) > MOST:
        return f"no kernel for a rank above {MOST}"
    limited = limited_layer(op)
    if isinstance(limited, str):
        return limited
    contiguous = (window.input_h, window.input_w) == (window.output_h, window.output_w)
    if one_tap_inside(window) and contiguous:
        return [_pointwise(op, limited, window)]
    return _windows(op, limited, window)


def _pointwise(op: Operation, limited: Limited, window: Window) -> Kernel:
    words = stream(limited.layer, widened_order(limited.layer.filters.reshape(window.output_c, -1)))
    positions, steps = window.output_h * window.output_w, (window.input_c + 1) // 2
    unroll = steps if steps <= STRAIGHT else UNROLL
    inputs = Int8Positions(steps, unroll, window.input_c)
    dot = dot_routine(inputs, results_of(op, limited.layer), lora_start(lora_rank(op), below=False))
    fields: dict[str, Any] = {"positions": positions, "output_c": window.output_c}
    extra = {"input_c": window.input_c}
    cycles = dot.cycles(-(-positions // 2), window.output_c)
    return _kernel("pointwise", "tp_pointwise_lora_dsp", op, fields, extra, limited, dot, words, 8 * steps, cycles)


def _windows(op: Operation, limited: Limited, window: Window) -> list[Kernel] | str:
    rows = WindowRows(window, window.input_c % 4 == 0)
    if 2 * rows.distance > _REACH:
        return f"positions lie {rows.distance} bytes apart, more than a load reaches"
    words = rows.words(limited.layer)
    one = (window.dilation_h, window.dilation_w) == (1, 1) and window.kernel_h <= KERNEL_H_MAX
    found = [_ring(op, limited, rows, words)] if one else []
    if flat_fits(rows, STRAIGHT):
        found += [_flat(op, limited, rows, words, flat) for flat in (flat_rows(rows), flat_rows(rows, more_bytes=0))]
    return found or "no kernel with a LoRA for such a window: its inputs lie too far apart"


def _ring(op: Operation, limited: Limited, rows: WindowRows, words: np.ndarray) -> Kernel:
    window = rows.window
    unroll = min(rows.steps, UNROLL, (_REACH - rows.distance) // 4)
    in_line = window.kernel_h * min(rows.steps, 2 * unroll) <= STRAIGHT
    inputs = RingRows(window.kernel_h, rows.steps, unroll, not in_line, rows.distance)
    dot = dot_routine(inputs, results_of(op, limited.layer), lora_start(lora_rank(op), below=False))
    scratch = rows.ring_scratch_bytes
    each = dot.cycles(-(-window.output_w // 2), window.output_c) + 50 + 30 * window.kernel_h
    form = f"window of {window.kernel_h}x{window.kernel_w}"
    cycles = rows.cycles + window.output_h * each
    return _kernel(form, "tp_conv_lora_dsp", op, rows.fields(op), {}, limited, dot, words, scratch, cycles)


def _flat(op: Operation, limited: Limited, rows: WindowRows, words: np.ndarray, flat: Flat) -> Kernel:
    window = rows.window
    below = flat.together == 2
    dot = dot_routine(flat.inputs, results_of(op, limited.layer), lora_start(lora_rank(op), below))
    fields = rows.fields(op) | {"rows": flat.held, "together": flat.together}
    pairs = window.output_w if below else -(-window.output_w // 2)
    form = f"window of {window.kernel_h}x{window.kernel_w}, in line{', by columns' if below else ''}"
    cycles = rows.cycles + flat.moved * rows.pitch * 4
    cycles += -(-window.output_h // flat.together) * (dot.cycles(pairs, window.output_c) + 80)
    return _kernel(form, "tp_conv_flat_lora_dsp", op, fields, {}, limited, dot, words, flat.scratch_bytes, cycles)


def split_starts(words: np.ndarray, output_c: int) -> tuple[np.ndarray, np.ndarray]:
    """What sums of each block start from, (blocks, 4), and the words without that."""
    blocks = words.reshape(-(-output_c // BLOCK), -1)
    return blocks[:, :4].reshape(-1), blocks[:, 4:].reshape(-1)


def _alone(op: Operation, channels: np.ndarray) -> CStruct | None:
    """tp_lone_channels; None without any."""
    if not channels.any():
        return None
    multiplier, shift = multipliers(op)
    low, high = output_range(op)
    fields = {
        "count": int(channels.sum()),
        "channel": CArray("int32_t", np.flatnonzero(channels).astype(np.int32), "channel"),
        "bias": CArray("int32_t", layer_bias(op)[channels].astype(np.int32), "bias"),
        "multiplier": CArray("int32_t", multiplier[channels].astype(np.int32), "multiplier"),
        "shift": CArray("int8_t", shift[channels].astype(np.int8), "shift"),
        "output_offset": op.output.zero_point, "activation_min": low, "activation_max": high,
    }  # fmt: skip
    return CStruct("tp_lone_channels", fields, "alone")


def _base(words: np.ndarray) -> np.ndarray:
    """What sums start from in the order of the table, (blocks, 4), of S and low of both pairs: S without low."""
    pairs = words.astype(np.int64).reshape(-1, 2)
    base = np.stack([pairs[:, 1], pairs[:, 0] - pairs[:, 1]], 1).reshape(-1, BLOCK) & 0xFFFFFFFF
    return base.astype(np.uint32).view(np.int32)


def _kernel(
    form: str,
    function: str,
    op: Operation,
    layer: dict[str, Any],
    extra: dict[str, Any],
    limited: Limited,
    dot: Dot,
    words: np.ndarray,
    scratch_bytes: int,
    cycles: int,
) -> Kernel:
    channels, rank = op.output.shape[-1], lora_rank(op)
    start, rest = split_starts(words, channels)
    base = _base(start)
    apart = rank <= IN_REGISTERS  # the table holds it
    if not apart:
        rest = np.concatenate([base, rest.reshape(len(base), -1)], 1).reshape(-1)
    layer = layer | {"word_count": len(rest), "words": CArray("int32_t", rest, "words"), "dot": None}
    addends = {
        "blocks": len(base), "output_c": channels, "rank": rank, "limit": 1 << (limited.bits - 1),
        "base": CArray("int32_t", base.reshape(-1), "base") if apart else None, "dot": CFunction(dot.routine.name),
        "alone": _alone(op, limited.alone),
    }  # fmt: skip
    fields = {"layer": layer, "start": addends, **extra}
    arguments = [op.inputs["input"], *(op.inputs[name] for name in LORA_OPERANDS), op.output]
    hidden = op.inputs["hidden"].size
    return Kernel(
        backend="dsp",
        form=f"{form} with a LoRA, 4 channels x 2 positions",
        call=KernelCall(f"{function}_s8", f"{function}_params", fields, arguments),
        sources=("dsp/tp_conv_lora_dsp.c", f"dsp/{WIDEN}", "tp_lora_add.c"),
        routines=(dot.routine,),
        scratch_bytes=table_bytes(rank, base.size) + scratch_bytes,
        cycles=cycles + 2 * hidden + channels * (40 + 10 * rank),
        code_bytes=dot.routine.nbytes + 900,
        table_bytes=words.nbytes,
        in_order=True,
    )
