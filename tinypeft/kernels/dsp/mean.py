"""MEAN over positions: four channels at a time."""

from __future__ import annotations

from tinypeft.ir import Operation
from tinypeft.kernels.base import Kernel, Target
from tinypeft.ops.base import KernelCall
from tinypeft.ops.reduction import loops_of


def offers(op: Operation, target: Target) -> list[Kernel] | str:
    """Its kernel for a mean, or why there is none."""
    loops = loops_of(op)
    if not loops.over_rows or loops.results < 4:
        return "no kernel for means that are not over rows of four channels or more"
    call = op.op.call(op)
    assert call is not None
    p = call.fields
    right = -p["shift"] if p["multiplier"] else 1
    if not 1 <= right <= 31 or 255 * loops.count >= 1 << 30:
        return "no kernel for means whose sums are shifted to the left or leave 31 bits"
    fields = {
        "count": loops.count,
        "channels": loops.results,
        "start": p["input_offset"] * loops.count,
        "multiplier": p["multiplier"],
        "shift": right,
        "output_offset": p["output_offset"],
    }
    fours, rest = divmod(loops.results, 4)
    cycles = 60 + fours * (173 + loops.count * 21 // 4) + rest * (45 + 11 * loops.count)
    call = KernelCall("tp_mean_dsp", "tp_mean_dsp_params", fields, call.arguments)
    form = "four channels at a time"
    return [Kernel("dsp", form, call, ("dsp/tp_mean_dsp.c",), cycles=cycles, code_bytes=400)]
