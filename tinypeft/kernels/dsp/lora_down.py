"""LORA_DOWN of the `dsp` backend."""

from __future__ import annotations

from dataclasses import replace

from tinypeft.ir import Operation
from tinypeft.kernels.base import Kernel, Target
from tinypeft.kernels.dsp import dense_trained
from tinypeft.kernels.dsp.down_routine import Down, Form
from tinypeft.kernels.dsp.gradients import Offer, padded_pitch, padded_rows
from tinypeft.ops.base import CFunction
from tinypeft.ops.weighted import one_tap_inside
from tinypeft.ops.window import Window

#: about what more rows of an image than a window needs may take
_ROW_BYTES = 512
#: in front of the rows that a routine computes: what four sums start from, and a shift
_BLOCK_WORDS = 5


def lora_down(op: Operation, target: Target) -> Offer:
    """LORA_DOWN: up to four rows of A, which is widened first, share a pass over the input."""
    window: Window = op.attributes["window"]
    rank, pointwise = window.output_c, one_tap_inside(window)
    if pointwise and window.output_h * window.output_w == 1:
        return dense_trained.lora_down(op, target)
    if window.dilation_w != 1 or (pointwise and window.input_c % 4):
        return "no kernel for dilated windows, or 1x1 ones of channels that are no multiple of 4"
    dense = pointwise and window.stride_h == window.stride_w == 1
    positions = window.output_h * window.output_w
    line = positions if dense else window.output_w
    if line < 2:
        return "no kernel for a single position a row"
    call = op.op.call(op)
    assert call is not None
    width = -(-window.kernel_w * window.input_c // 4) * 4
    pitch = 0 if pointwise else padded_pitch(window)
    extent = (window.kernel_h - 1) * window.dilation_h + 1
    count = padded_rows(window)
    rows = 0 if pointwise else extent + min(count - extent, -(-_ROW_BYTES // pitch))
    shape = window.kernel_h, width, window.dilation_h * pitch, window.stride_w * window.input_c, rank
    groups = _groups(rank, line, shape)
    if isinstance(groups, str):
        return groups
    fours, rest = groups
    size = window.kernel_h * width
    routines = {name: each.routine() for name, each in (("fours", fours), ("rest", rest)) if each}
    fields = {"down": call.fields, "pitch": pitch, "rows": rows}
    for name, each in (("fours", fours), ("rest", rest)):
        fields |= {name: CFunction(routines[name].name) if each else None, f"{name}_form": each.form if each else 0}
    times = (rank // 4 * fours.cycles if fours else 0) // 2 + (rest.cycles // rest.form.positions if rest else 0)
    computed = sum(n * each.form.words // 2 for n, each in ((rank // 4, fours), (1, rest)) if each)
    return [
        Kernel(
            backend="dsp",
            form=" and ".join(f"{e.rows} rows x {e.form.positions} positions" for e in (fours, rest) if e),
            call=replace(call, function="tp_lora_down_dsp_s8", params="tp_lora_down_dsp_params", fields=fields),
            sources=("dsp/tp_lora_down_dsp.c", "dsp/tp_padded_row_dsp.c", "tp_lora.c"),
            routines=tuple(routines.values()),
            scratch_bytes=-(-rank // 4) * 4 * _BLOCK_WORDS + computed * 2 * size + rows * pitch,
            cycles=positions * times
            + positions // line * 80
            + 3 * rank * size
            + (0 if pointwise else count * (150 + pitch) + window.output_h * 100),
            code_bytes=900 + sum(each.nbytes for each in routines.values()),
        )
    ]


def _groups(rank: int, line: int, shape: tuple[int, int, int, int, int]) -> tuple[Down | None, Down | None] | str:
    """The routine of each four rows and that of the others."""

    def found(rows: int, *forms: Form) -> Down | None:
        return next((down for form in forms if (down := Down(form, rows, *shape)).fits), None)

    four = found(4, Form.PACKED, Form.FOUR) if rank >= 4 else None
    left = rank % 4
    rest = found(
        left, *((Form.PACKED, Form.FOUR) if left == 3 else (Form.ONE,) * (left < 2 <= line // 2) + (Form.TWO,))
    )
    if (rank >= 4 and four is None) or (left and rest is None):
        return f"no kernel for windows of {shape[0]} rows {shape[2]} bytes apart: loads do not reach them"
    return four, rest if left else None
