"""LORA_DOWN of the `dsp` backend."""

from __future__ import annotations

from dataclasses import replace

from tinypeft.ir import Operation
from tinypeft.kernels.base import Kernel, Target
from tinypeft.kernels.dsp import down_routine
from tinypeft.kernels.dsp.gradients import Offer, padded_pitch, padded_rows
from tinypeft.ops.base import CFunction
from tinypeft.ops.weighted import one_tap_inside
from tinypeft.ops.window import Window

#: about what more rows of an image than a window needs may take
_ROW_BYTES = 512


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
    pitch = 0 if pointwise else padded_pitch(window)
    extent = (window.kernel_h - 1) * window.dilation_h + 1
    count = padded_rows(window)
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
