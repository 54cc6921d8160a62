"""CONV_2D of the `dsp` backend: pointwise over chunks of widened positions, windows over a ring of widened rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinypeft.ir import Operation
from tinypeft.kernels.base import Kernel, Target
from tinypeft.kernels.dsp.dot import Dot, Results, dot_routine
from tinypeft.kernels.dsp.inputs import FlatRows, Int8Positions, RingRows, WidenedPositions
from tinypeft.kernels.dsp.packing import Layer, packed_or_plain, stream, widened_order
from tinypeft.ops.activation import output_range
from tinypeft.ops.base import CArray, CFunction, KernelCall
from tinypeft.ops.weighted import one_tap_inside
from tinypeft.ops.window import Window

#: Scratch for widened positions of a pointwise layer: as many as fit, an even number
_POSITION_BYTES = 1024
#: Steps in a row of code: of loops, of loops inside rows in line, and the most of straight lines
UNROLL, _ROW_UNROLL, STRAIGHT = 15, 24, 160
KERNEL_H_MAX = 16
#: Steps of a window that lies in line, and the least scratch for more rows than it needs
_FLAT, _MORE_ROWS_BYTES = 48, 256
WIDEN = "tp_widen_rows_dsp.c"
#: Bytes that a load reaches behind its register
_REACH = 4095


def refusal(op: Operation, lora: bool = False, trained_bias: bool = False) -> str | None:
    """Why packed weights are none for a layer, whatever its numbers are.

    `lora`: with one that is not merged, `trained_bias`: with a bias that an adapter brings.
    """
    if "hidden" in op.inputs and not lora:
        return "no kernel for a LoRA that is not merged"
    if "multiplier" in op.inputs:
        return "no kernel for scales that change with training"
    if op.inputs["filter"].data is None:
        return "no kernel for filters that are not constant"
    constant = "bias" not in op.inputs or op.inputs["bias"].data is not None
    if not trained_bias and ("trained_bias" in op.attributes or not constant):
        return "no kernel for a trained bias"
    return None


def offers(op: Operation, target: Target) -> list[Kernel] | str:
    """Looped code, and straight lines where they are not too long."""
    del target
    window: Window = op.attributes["window"]
    reason = refusal(op)
    if reason is not None:
        return reason
    if window.input_c != op.inputs["filter"].shape[-1]:
        return "no kernel for groups"
    if window.kernel_h > KERNEL_H_MAX:
        return f"no kernel for more than {KERNEL_H_MAX} rows of a window"
    layer = packed_or_plain(op)
    if isinstance(layer, str):
        return layer
    return pointwise_kernels(op, layer, window) if one_tap_inside(window) else _window_kernels(op, layer, window)


def results_of(op: Operation, layer: Layer) -> Results:
    """What a layer's accumulators become."""
    return Results(layer.requantize, op.output.zero_point, output_range(op), op.output.shape[-1])


def pointwise_kernels(op: Operation, layer: Layer, window: Window) -> list[Kernel]:
    """Of a 1x1 convolution inside its input, and of dense layers over several rows."""
    words = stream(layer, widened_order(layer.filters.reshape(window.output_c, -1)))
    steps = (window.input_c + 1) // 2
    contiguous = (window.input_h, window.input_w) == (window.output_h, window.output_w)
    contiguous = contiguous and (window.stride_h, window.stride_w) == (1, 1) and window.input_c <= _REACH
    make = _contiguous_kernel if contiguous else _strided_kernel
    return [make(op, layer, window, words, unroll, name) for unroll, name in _unrolls(steps, 1)]


def _contiguous_kernel(
    op: Operation, layer: Layer, window: Window, words: np.ndarray, unroll: int, name: str
) -> Kernel:
    positions, steps = window.output_h * window.output_w, (window.input_c + 1) // 2
    dot = dot_routine(Int8Positions(steps, unroll, window.input_c, layer.requantize.plain), results_of(op, layer))
    fields = {"positions": positions, "output_c": window.output_c, **_table(words), "dot": CFunction(dot.routine.name)}
    cycles = 30 + dot.cycles(-(-positions // 2), window.output_c)
    call = _call("tp_pointwise_dsp", op, fields)
    return _kernel(f"pointwise, {name}", call, ("tp_pointwise_dsp.c",), dot, words, 8 * steps, cycles)


def _strided_kernel(op: Operation, layer: Layer, window: Window, words: np.ndarray, unroll: int, name: str) -> Kernel:
    positions, steps = window.output_h * window.output_w, (window.input_c + 1) // 2
    together = min(max(_POSITION_BYTES // (4 * steps) & ~1, 2), positions + positions % 2)
    dot = dot_routine(WidenedPositions(steps, unroll, layer.requantize.plain), results_of(op, layer))
    names = ("input_w", "input_c", "output_h", "output_w", "output_c", "stride_h", "stride_w")
    fields = {name: getattr(window, name) for name in names}
    fields |= {"together": together, **_table(words), "dot": CFunction(dot.routine.name)}
    whole, left = divmod(positions, together)
    cycles = (whole + 1) * 25 + positions * (20 + 9 * (window.input_c // 4) + 6 * (window.input_c % 4))
    cycles += whole * dot.cycles(together // 2, window.output_c)
    cycles += dot.cycles((left + 1) // 2, window.output_c) if left else 0
    call = _call("tp_pointwise_strided_dsp", op, fields)
    sources = ("tp_pointwise_strided_dsp.c",)
    return _kernel(f"pointwise with strides, {name}", call, sources, dot, words, 4 * steps * together, cycles)


def _unrolls(steps: int, rows: int) -> list[tuple[int, str]]:
    """(steps in a row of code, what to call it)."""
    found = [(min(UNROLL, steps), "looped" if steps >= 2 * UNROLL else "straight")]
    if 2 * UNROLL <= steps <= STRAIGHT // rows:
        found.append((steps, "straight"))
    return found


@dataclass(frozen=True)
class WindowRows:
    """Widened rows of a window. A segment is what a position reads of a row in one piece: all taps, or one if dilated.

    distance  bytes from a position to the next
    steps     pairs of inputs of a segment
    pitch     int16 of a row
    """

    window: Window
    ordered: bool

    @property
    def distance(self) -> int:
        return 2 * self.window.stride_w * self.window.input_c

    @property
    def taps(self) -> int:
        """Of a segment."""
        return self.window.kernel_w if self.window.dilation_w == 1 else 1

    @property
    def steps(self) -> int:
        return (self.taps * self.window.input_c + 1) // 2

    @property
    def width(self) -> int:
        """Inputs of a row."""
        extent = (self.window.kernel_w - 1) * self.window.dilation_w + 1
        return ((self.window.output_w - 1) * self.window.stride_w + extent) * self.window.input_c

    @property
    def pitch(self) -> int:
        return self.width + self.width % 2

    @property
    def extent(self) -> int:
        """Rows that a position spans."""
        return (self.window.kernel_h - 1) * self.window.dilation_h + 1

    @property
    def count(self) -> int:
        """Rows of the padded image that positions span, those between windows included."""
        return (self.window.output_h - 1) * self.window.stride_h + self.extent

    @property
    def segments(self) -> tuple[int, ...]:
        """Bytes from a position to each of its segments."""
        columns = [tap * self.window.dilation_w * 2 * self.window.input_c for tap in range(self._segments_of_row)]
        return tuple(
            2 * row * self.window.dilation_h * self.pitch + at for row in range(self.window.kernel_h) for at in columns
        )

    @property
    def _segments_of_row(self) -> int:
        return self.window.kernel_w // self.taps

    @property
    def cycles(self) -> int:
        """To widen all that are read."""
        read = self.count - (self.window.output_h - 1) * max(self.window.stride_h - self.extent, 0)
        return read * (65 + (15 if self.ordered else 20) * self.width // 8)

    @property
    def ring_scratch_bytes(self) -> int:
        """Of a ring of as many rows as the window, the word in front and what the last position reads beyond."""
        return 4 + 2 * self.window.kernel_h * self.pitch + -(-(self.distance + 4) // 4) * 4

    def words(self, layer: Layer) -> np.ndarray:
        """A layer's words, its filters in the order of the inputs, each segment up to even."""
        filters = layer.filters.reshape(-1, self.taps * self.window.input_c)
        columns = widened_order(filters) if self.ordered else np.pad(filters, ((0, 0), (0, filters.shape[1] % 2)))
        return stream(layer, columns.reshape(self.window.output_c, -1))

    def fields(self, op: Operation) -> dict[str, Any]:
        """What parameters of windows begin with."""
        return {
            "window": self.window.fields(), "padding": op.inputs["input"].zero_point, "pitch": self.pitch,
            "ordered": int(self.ordered),
        }  # fmt: skip


def _window_kernels(op: Operation, layer: Layer, window: Window) -> list[Kernel] | str:
    rows = WindowRows(window, window.input_c % 4 == 0)
    if 2 * rows.distance > _REACH:
        return f"positions lie {rows.distance} bytes apart, more than a load reaches"
    words = rows.words(layer)
    results = results_of(op, layer)
    fields = rows.fields(op) | _table(words)
    dilated = (window.dilation_h, window.dilation_w) != (1, 1)
    found = _flat_kernels(op, rows, results, words, fields, STRAIGHT if dilated else _FLAT)
    if dilated:
        return found or "no kernel for such a dilation: its inputs lie too far apart"
    return [*_ring_kernels(op, rows, results, words, fields), *found]


def _ring_kernels(
    op: Operation, rows: WindowRows, results: Results, words: np.ndarray, fields: dict[str, Any]
) -> list[Kernel]:
    window = rows.window
    several = window.kernel_h > 1
    forms = [(min(UNROLL, rows.steps), several, "rows looped" if several else "looped")]
    unroll = min(rows.steps, _ROW_UNROLL)
    if several and window.kernel_h * min(rows.steps, 2 * unroll) <= STRAIGHT:
        forms.append((unroll, False, "rows in line"))
    kernels = []
    for unroll, row_loop, name in forms:
        if rows.distance + 4 * unroll > _REACH:
            continue
        dot = dot_routine(
            RingRows(window.kernel_h, rows.steps, unroll, row_loop, rows.distance, results.form.plain), results
        )
        each = dot.cycles(-(-window.output_w // 2), window.output_c) + 30 + 30 * window.kernel_h
        call = _call("tp_conv_dsp", op, fields | {"dot": CFunction(dot.routine.name)})
        form = f"window of {window.kernel_h}x{window.kernel_w}, {name}"
        cycles = rows.cycles + window.output_h * each
        kernels.append(_kernel(form, call, ("tp_conv_dsp.c", WIDEN), dot, words, rows.ring_scratch_bytes, cycles))
    return kernels


@dataclass(frozen=True)
class Flat:
    """Rows one behind the other: two positions of a row, or of two rows where that wastes less at the ends.

    together  output rows that are computed at once, 1 or 2
    held      rows that scratch holds
    moved     rows that move to the front of scratch, about
    """

    inputs: FlatRows
    together: int
    held: int
    scratch_bytes: int
    moved: int


def flat_rows(rows: WindowRows, plain: bool = False, more_bytes: int = _MORE_ROWS_BYTES) -> Flat:
    """How a window's rows lie in scratch, `more_bytes` of them or a step's more than are read at once."""
    window, pitch = rows.window, 2 * rows.pitch
    below = _below(window)
    together = 2 if below else 1
    distance = window.stride_h * pitch if below else rows.distance
    needed = rows.extent + (window.stride_h if below else 0)
    step = together * window.stride_h
    held = needed + min(max(rows.count - needed, 0), max(-(-more_bytes // pitch), step))
    scratch = held * pitch + (0 if below else -(-(distance + 4) // 4) * 4) + 4
    moved = max(needed - step, 0) * rows.count // max(held - needed + 1, step)
    inputs = FlatRows(rows.segments, rows.steps, distance, (3 - together) * rows.distance, below, plain)
    return Flat(inputs, together, held, scratch, moved)


def flat_fits(rows: WindowRows, most_steps: int) -> bool:
    """Whether loads reach both positions' inputs, with no more code than wanted."""
    distance = rows.window.stride_h * 2 * rows.pitch if _below(rows.window) else rows.distance
    few = len(rows.segments) * rows.steps <= most_steps
    return few and rows.segments[-1] + 4 * rows.steps + distance <= _REACH


def _below(window: Window) -> bool:
    return -(-window.output_h // 2) * window.output_w < window.output_h * -(-window.output_w // 2)


def _flat_kernels(
    op: Operation, rows: WindowRows, results: Results, words: np.ndarray, fields: dict[str, Any], most_steps: int
) -> list[Kernel]:
    """For small windows."""
    if not flat_fits(rows, most_steps):
        return []
    window, flat = rows.window, flat_rows(rows, results.form.plain)
    dot = dot_routine(flat.inputs, results)
    fields = fields | {"rows": flat.held, "together": flat.together, "dot": CFunction(dot.routine.name)}
    pairs = window.output_w if flat.together == 2 else -(-window.output_w // 2)
    cycles = rows.cycles + -(-window.output_h // flat.together) * (dot.cycles(pairs, window.output_c) + 60)
    cycles += flat.moved * rows.pitch * 4
    form = f"window of {window.kernel_h}x{window.kernel_w}, in line{', by columns' if flat.together == 2 else ''}"
    call = _call("tp_conv_flat_dsp", op, fields)
    return [_kernel(form, call, ("tp_conv_flat_dsp.c", WIDEN), dot, words, flat.scratch_bytes, cycles)]


def _table(words: np.ndarray) -> dict[str, Any]:
    return {"word_count": len(words), "words": CArray("int32_t", words, "words")}


def _call(function: str, op: Operation, fields: dict[str, Any]) -> KernelCall:
    return KernelCall(f"{function}_s8", f"{function}_params", fields, [op.inputs["input"], op.output])


def _kernel(
    form: str,
    call: KernelCall,
    sources: tuple[str, ...],
    dot: Dot,
    words: np.ndarray,
    scratch_bytes: int,
    cycles: int,
) -> Kernel:
    return Kernel(
        backend="dsp",
        form=f"{form}, 4 channels x 2 positions",
        call=call,
        sources=tuple(f"dsp/{source}" for source in sources),
        routines=(dot.routine,),
        scratch_bytes=scratch_bytes,
        cycles=cycles,
        code_bytes=dot.routine.nbytes,
        table_bytes=words.nbytes,
        in_order=True,
    )
