"""CONV_2D of the `dsp` backend with a LoRA that is not merged: accumulators start from what it adds."""

from __future__ import annotations

from dataclasses import dataclass
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
from tinypeft.kernels.dsp.inputs import Inputs, Int8Positions, RingRows
from tinypeft.kernels.dsp.limited import Limited, channels_without_weights, limited_layer, with_channels
from tinypeft.kernels.dsp.lora_start import IN_REGISTERS, MOST, lora_start, table_bytes
from tinypeft.kernels.dsp.packing import BLOCK, split_starts, stream, widened_order
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
    empty = channels_without_weights(op)
    if empty.all():
        return "no output channel has weights"
    live = with_channels(op, ~empty) if empty.any() else op
    limited = limited_layer(live)
    if isinstance(limited, str):
        return limited
    adapted = _Adapted(op, live, limited, empty)
    contiguous = (window.input_h, window.input_w) == (window.output_h, window.output_w)
    if one_tap_inside(window) and contiguous:
        return [_pointwise(adapted, window)]
    return _windows(adapted, window)


@dataclass(frozen=True)
class _Adapted:
    """A layer, `live`: it with the channels alone that have weights, and which have none."""

    op: Operation
    live: Operation
    limited: Limited
    empty: np.ndarray

    @property
    def rank(self) -> int:
        return lora_rank(self.op)

    @property
    def channels(self) -> int:
        """That the routine computes."""
        return int(self.live.output.shape[-1])

    def dot(self, inputs: Inputs, below: bool = False) -> Dot:
        return dot_routine(inputs, results_of(self.live, self.limited.layer), lora_start(self.rank, below))


def over_rows(op: Operation, limited: Limited, window: Window) -> Kernel:
    """That of a dense layer over several rows, of which `window` is the 1x1 one."""
    return _pointwise(_Adapted(op, op, limited, np.zeros(window.output_c, bool)), window)


def _pointwise(adapted: _Adapted, window: Window) -> Kernel:
    layer = adapted.limited.layer
    words = stream(layer, widened_order(layer.filters.reshape(adapted.channels, -1)))
    positions, steps = window.output_h * window.output_w, (window.input_c + 1) // 2
    unroll = steps if steps <= STRAIGHT else UNROLL
    dot = adapted.dot(Int8Positions(steps, unroll, window.input_c))
    fields: dict[str, Any] = {"positions": positions, "output_c": window.output_c}
    cycles = dot.cycles(-(-positions // 2), adapted.channels)
    extra = {"input_c": window.input_c}
    return _kernel("pointwise", "tp_pointwise_lora_dsp", adapted, fields, extra, dot, words, 8 * steps, cycles)


def _windows(adapted: _Adapted, window: Window) -> list[Kernel] | str:
    rows = WindowRows(window, window.input_c % 4 == 0)
    if 2 * rows.distance > _REACH:
        return f"positions lie {rows.distance} bytes apart, more than a load reaches"
    words = WindowRows(adapted.live.attributes["window"], rows.ordered).words(adapted.limited.layer)
    one = (window.dilation_h, window.dilation_w) == (1, 1) and window.kernel_h <= KERNEL_H_MAX
    found = [_ring(adapted, rows, words)] if one else []
    if flat_fits(rows, STRAIGHT):
        found += [_flat(adapted, rows, words, flat) for flat in (flat_rows(rows), flat_rows(rows, more_bytes=0))]
    return found or "no kernel with a LoRA for such a window: its inputs lie too far apart"


def _ring(adapted: _Adapted, rows: WindowRows, words: np.ndarray) -> Kernel:
    window = rows.window
    unroll = min(rows.steps, UNROLL, (_REACH - rows.distance) // 4)
    in_line = window.kernel_h * min(rows.steps, 2 * unroll) <= STRAIGHT
    dot = adapted.dot(RingRows(window.kernel_h, rows.steps, unroll, not in_line, rows.distance))
    scratch = rows.ring_scratch_bytes
    each = dot.cycles(-(-window.output_w // 2), adapted.channels) + 50 + 30 * window.kernel_h
    form = f"window of {window.kernel_h}x{window.kernel_w}"
    cycles = rows.cycles + window.output_h * each
    return _kernel(form, "tp_conv_lora_dsp", adapted, rows.fields(adapted.op), {}, dot, words, scratch, cycles)


def _flat(adapted: _Adapted, rows: WindowRows, words: np.ndarray, flat: Flat) -> Kernel:
    window = rows.window
    below = flat.together == 2
    dot = adapted.dot(flat.inputs, below)
    fields = rows.fields(adapted.op) | {"rows": flat.held, "together": flat.together}
    pairs = window.output_w if below else -(-window.output_w // 2)
    form = f"window of {window.kernel_h}x{window.kernel_w}, in line{', by columns' if below else ''}"
    cycles = rows.cycles + flat.moved * rows.pitch * 4
    cycles += -(-window.output_h // flat.together) * (dot.cycles(pairs, adapted.channels) + 80)
    return _kernel(form, "tp_conv_flat_lora_dsp", adapted, fields, {}, dot, words, flat.scratch_bytes, cycles)


def _alone(op: Operation, channels: np.ndarray) -> CStruct | None:
    """tp_lone_channels; None without any."""
    if not channels.any():
        return None
    multiplier, shift = multipliers(op)
    low, high = output_range(op)
    fields = {
        "count": int(channels.sum()),
        "channel": CArray("int16_t", np.flatnonzero(channels).astype(np.int16), "channel"),
        "bias": CArray("int32_t", layer_bias(op)[channels].astype(np.int32), "bias"),
        "multiplier": CArray("int32_t", multiplier[channels].astype(np.int32), "multiplier"),
        "shift": CArray("int8_t", shift[channels].astype(np.int8), "shift"),
        "output_offset": op.output.zero_point, "activation_min": low, "activation_max": high,
        "others": CArray("int16_t", np.flatnonzero(~channels).astype(np.int16), "others"),
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
    adapted: _Adapted,
    layer: dict[str, Any],
    extra: dict[str, Any],
    dot: Dot,
    words: np.ndarray,
    scratch_bytes: int,
    cycles: int,
) -> Kernel:
    op, rank, channels = adapted.op, adapted.rank, adapted.channels
    start, rest = split_starts(words, channels)
    base = _base(start)
    apart = rank <= IN_REGISTERS  # the table holds it
    if not apart:
        rest = np.concatenate([base, rest.reshape(len(base), -1)], 1).reshape(-1)
    layer = layer | {"word_count": len(rest), "words": CArray("int32_t", rest, "words"), "dot": None}
    lone = int(adapted.empty.sum())
    addends = {
        "blocks": len(base), "computed_c": channels, "output_c": channels + lone, "rank": rank,
        "limit": 1 << (adapted.limited.bits - 1),
        "base": CArray("int32_t", base.reshape(-1), "base") if apart else None,
        "dot": CFunction(dot.routine.name), "alone": _alone(op, adapted.empty),
    }  # fmt: skip
    fields = {"layer": layer, "start": addends, **extra}
    arguments = [op.inputs["input"], *(op.inputs[name] for name in LORA_OPERANDS), op.output]
    hidden = op.inputs["hidden"].size
    each = 60 + 4 * channels + 4 * lone if lone else 0  # what a position's outputs cost to be put into their places
    return Kernel(
        backend="dsp",
        form=f"{form} with a LoRA, 4 channels x 2 positions",
        call=KernelCall(f"{function}_s8", f"{function}_params", fields, arguments),
        sources=("dsp/tp_conv_lora_dsp.c", "dsp/tp_lora_table_dsp.c", f"dsp/{WIDEN}", "tp_lora_add.c"),
        routines=(dot.routine,),
        scratch_bytes=table_bytes(rank, base.size) + (-(-2 * channels // 4) * 4 if lone else 0) + scratch_bytes,
        cycles=cycles + 2 * hidden + channels * (40 + 10 * rank) + hidden // rank * each,
        code_bytes=dot.routine.nbytes + 900,
        table_bytes=words.nbytes + 15 * lone,
        in_order=True,
    )
