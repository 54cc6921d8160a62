"""UPDATE_ROWS of the `dsp` backend: gradients of a LoRA's matrices and of other filters, several rows at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tinypeft.ir import Operation
from tinypeft.kernels.base import Kernel, Target
from tinypeft.kernels.dsp.correlate_routine import COLUMNS, Correlation
from tinypeft.kernels.dsp.gradients import Offer, gradients_of_16_bits, padded_pitch
from tinypeft.ops.base import CFunction, CStruct
from tinypeft.ops.window import Window

#: about what columns of positions may take, several rows of a gradient at least, and both where columns are kept from
#: part to part of the gradient; the most of a padded image
_COLUMN_BYTES, _ROWS_BYTES, _KEPT_BYTES, _IMAGE_BYTES = 1024, 1024, 1120, 4096
#: the most rows of a part of a gradient; positions, the sum of whose mantissas times a zero point int32 holds
_MOST_ROWS, _MOST_POSITIONS = 32, 512
#: portable functions of a filter's gradient
_FILTER_GRADIENTS = "tp_filter_gradient_s32", "tp_filter_gradient_wide_s32"
#: cycles of a call of a routine beside it, of a word of columns, of a part of the gradient, of an element's update
_CALL_CYCLES, _WORD_CYCLES, _PART_CYCLES, _UPDATE_CYCLES = 20, 8, 100, 30


def update_rows(op: Operation, target: Target) -> Offer:
    """UPDATE_ROWS of a LoRA's matrices: the sums over positions of a block of rows, from columns of two positions."""
    producer: Operation = op.attributes["gradient"]
    call = op.op.call(op)
    assert call is not None
    portable = call.fields["gradient"].name
    if not gradients_of_16_bits(producer):
        return "no kernel for gradients of 8 bits"
    if portable == "tp_lora_gradient_b_s32" and op.inputs["master"].shape[0] > 1:
        return _offer(op, _of_b(op))
    if portable in _FILTER_GRADIENTS and "first_channel" not in producer.attributes:
        window: Window = producer.attributes["window"]
        if _whole_pointwise(window):
            return _offer(op, _of_pointwise(op))
        taps = op.inputs["master"].size // op.inputs["master"].shape[0]
        small = window.output_w <= _MOST_POSITIONS and _image_bytes(window, 1) <= _IMAGE_BYTES
        if window.dilation_w == 1 and taps > 1 and small:
            return _offer(op, _of_window(op))
    return f"no kernel in the place of {portable}"


@dataclass(frozen=True)
class _Form:
    """A gradient's C function, its params with their own fields beside `held`, those of the portable function.

    block, width  rows that it gives at a time, and elements of each
    behind        bytes that it needs behind their gradient
    cycles        of all rows
    """

    function: str
    params: str
    held: str
    fields: dict[str, int]
    block: int
    width: int
    behind: int
    correlation: Correlation
    cycles: int


def _offer(op: Operation, form: _Form) -> Offer:
    if not form.correlation.fits:
        return "no kernel for so many channels"
    call, routine = op.op.call(op), form.correlation.routine()
    assert call is not None
    params: CStruct = call.fields["gradient_params"]
    own = {form.held: params.fields, **form.fields, "routine": CFunction(routine.name)}
    gradient = CStruct(form.params, own, params.name)
    fields = {"gradient": CFunction(form.function), "gradient_params": gradient}
    fields |= {"block": form.block, "width": form.width}
    return [
        Kernel(
            backend="dsp",
            form=f"{form.correlation.count} x 2 sums",
            call=replace(call, fields=call.fields | fields),
            sources=(*op.op.sources(op), "dsp/tp_lora_gradients_dsp.c", "dsp/tp_padded_row_dsp.c"),
            routines=(routine,),
            scratch_bytes=4 * form.block * form.width + form.behind,
            cycles=form.cycles + _UPDATE_CYCLES * op.inputs["master"].size,
            code_bytes=900 + routine.nbytes,
        )
    ]


def _of_b(op: Operation) -> _Form:
    producer: Operation = op.attributes["gradient"]
    d_output = producer.inputs["d_output"]
    channels = d_output.shape[-1]
    positions, rank = d_output.size // channels, op.inputs["master"].shape[-1]
    count = max(n for n in range(1, COLUMNS + 1) if rank % n == 0)
    chunk = _even_parts(positions, _COLUMN_BYTES // (2 * count))
    words = count * (1 + -(-chunk // 2))
    kept = chunk == positions and count == rank
    left = _KEPT_BYTES - 4 * words if kept else _ROWS_BYTES
    block = min(_MOST_ROWS, max(2, left // (8 * rank) * 2), channels + channels % 2)
    correlation = Correlation(16, 1, chunk, 2 * channels, 0, count, 4, 4 * rank, chunk < positions, True)
    calls = channels // 2 * (correlation.cycles + _CALL_CYCLES)
    blocks, parts = -(-channels // block), -(-positions // chunk) * (rank // count)
    cycles = parts * ((1 if kept else blocks) * _WORD_CYCLES * words + calls) + _PART_CYCLES * blocks
    return _Form(
        "tp_lora_gradient_b_dsp_s32",
        "tp_lora_gradient_dsp_params",
        "lora",
        {"block": block, "chunk": chunk, "count": count},
        block,
        rank,
        4 * words,
        correlation,
        cycles + channels % 2 * 4 * positions * rank,
    )


def _of_pointwise(op: Operation) -> _Form:
    window: Window = op.attributes["gradient"].attributes["window"]
    positions, channels = window.output_h * window.output_w, window.input_c
    count = _even_parts(window.output_c, COLUMNS)
    chunk = _even_parts(positions, _COLUMN_BYTES // (2 * count))
    whole = chunk < positions or _is_wide(op) or _needs_whole_rows(op)
    if whole:
        count = _rows_together(window)
        chunk = _even_parts(positions, _COLUMN_BYTES // (2 * count))
    behind = 4 * count * (1 + -(-chunk // 2))
    width = channels if whole else min(channels, max(2, (_KEPT_BYTES - behind) // (8 * count) * 2))
    correlation = Correlation(8, 1, chunk, channels, 0, count, 4 * width, 4, chunk < positions, _is_wide(op))
    fields = {"count": count, "width": width, "chunk": chunk, "pitch": 0}
    cycles = -(-positions // chunk) * _filter_cycles(window, correlation) + _PART_CYCLES * count * -(-channels // width)
    return _of_filter(window, "tp_pointwise_gradient_dsp_s32", fields, behind, correlation, cycles)


def _of_window(op: Operation) -> _Form:
    window: Window = op.attributes["gradient"].attributes["window"]
    pitch, count = padded_pitch(window), _rows_together(window)
    width = window.kernel_h * window.kernel_w * window.input_c
    words = count * -(-window.output_w // 2)
    most = max(1, _COLUMN_BYTES // (4 * words))
    while most > 1 and _image_bytes(window, most) > _IMAGE_BYTES:
        most -= 1
    lines = _even_parts(window.output_h, most)
    steps, image = (window.stride_w * window.input_c, window.stride_h * pitch), _image_bytes(window, lines)
    adds, shifts = lines < window.output_h, _is_wide(op)
    correlation = Correlation(8, lines, window.output_w, *steps, count, 4 * width, 4, adds, shifts)
    fields = {"count": count, "width": width, "chunk": lines, "pitch": pitch}
    cycles = _filter_cycles(window, correlation) + image // pitch * (150 + pitch // 2)
    cycles *= -(-window.output_h // lines)
    behind = 4 * (1 + count + lines * words) + image
    return _of_filter(window, "tp_window_gradient_dsp_s32", fields, behind, correlation, cycles)


def _of_filter(
    window: Window, function: str, fields: dict[str, int], behind: int, correlation: Correlation, cycles: int
) -> _Form:
    """Of a filter; `cycles` of a block of rows."""
    params, count = "tp_filter_gradient_dsp_params", correlation.count
    cycles *= -(-window.output_c // count)
    return _Form(function, params, "filter", fields, count, fields["width"], behind, correlation, cycles)


def _filter_cycles(window: Window, correlation: Correlation) -> int:
    """Of all taps of some rows, at the positions of a call."""
    words = correlation.lines * correlation.count * -(-correlation.positions // 2)
    calls = window.kernel_h * -(-window.kernel_w * window.input_c // 2)
    return _WORD_CYCLES * words + calls * (correlation.cycles + _CALL_CYCLES)


def _is_wide(op: Operation) -> bool:
    """Whether int32 may not hold the sums of a filter's gradient."""
    call = op.op.call(op)
    assert call is not None
    return bool(call.fields["gradient"].name == "tp_filter_gradient_wide_s32")


def _needs_whole_rows(op: Operation) -> bool:
    """Whether the optimiser cannot update a part of a row."""
    update: Operation = op.attributes["update"]
    return update.op.row_function(update).whole_rows


def _rows_together(window: Window) -> int:
    """Rows of a filter's gradient that are computed together: more where the input, which is live too, is larger."""
    row_bytes = 4 * window.kernel_h * window.kernel_w * window.input_c
    most = max(_ROWS_BYTES, window.input_h * window.input_w * window.input_c // 2)
    return _even_parts(window.output_c, max(1, min(COLUMNS, most // row_bytes)))


def _even_parts(count: int, most: int) -> int:
    """The size of parts that are as few as possible, at most `most` each, and nearly equal."""
    return -(-count // -(-count // most))


def _image_bytes(window: Window, lines: int) -> int:
    """Of the padded rows that so many rows of positions read."""
    return ((lines - 1) * window.stride_h + (window.kernel_h - 1) * window.dilation_h + 1) * padded_pitch(window)


def _whole_pointwise(window: Window) -> bool:
    """Whether a window is 1x1, of stride 1 and all of the input, an even number of channels."""
    same = (window.input_h, window.input_w) == (window.output_h, window.output_w)
    one = window.kernel_h == window.kernel_w == window.stride_h == window.stride_w == 1
    return same and one and not (window.pad_top or window.pad_left) and window.input_c % 2 == 0
