"""AVERAGE_POOL_2D and MAX_POOL_2D: four channels at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tinypeft.ir import Operation
from tinypeft.kernels.base import Kernel, Target
from tinypeft.ops.window import Window

#: kind -> (C function, bytes of its code, cycles of: a tap of four channels, a tap of one, a row of taps of four, and
#: besides of four outputs, of one, of a position)
_KERNELS: dict[str, tuple[str, int, tuple[float, ...]]] = {
    "AVERAGE_POOL_2D": ("tp_average_pool_dsp", 800, (5.4, 22.0, 22.5, 79.0, 2.8, 207.0)),
    "MAX_POOL_2D": ("tp_max_pool_dsp", 600, (10.1, 18.2, 10.0, 20.8, 2.3, 136.0)),
}


def offers(op: Operation, target: Target) -> list[Kernel] | str:
    """Its kernel for a pool, or why there is none."""
    window: Window = op.attributes["window"]
    if window.input_c < 4:
        return "no kernel for fewer than four channels"
    function, code_bytes, costs = _KERNELS[op.kind]
    call = op.op.call(op)
    assert call is not None
    inside = window.inside()
    taps, positions = int(np.count_nonzero(inside)), window.output_h * window.output_w
    rows = positions if window.kernel_w >= window.input_w else int(np.count_nonzero(inside.any(axis=3)))
    fours, rest = divmod(window.input_c, 4)
    counts = (taps * fours, taps * rest, rows * fours, positions * fours, positions * rest, positions)
    cycles = round(sum(count * cost for count, cost in zip(counts, costs, strict=True)))
    form = "four channels at a time"
    sources = ("dsp/tp_pool_dsp.c",)
    return [
        Kernel(
            "dsp", form, replace(call, function=function), sources, cycles=cycles, code_bytes=code_bytes, in_order=True
        )
    ]
