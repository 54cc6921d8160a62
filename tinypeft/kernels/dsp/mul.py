"""MUL: centred operands in halves of words, and a requantisation of five instructions."""

from __future__ import annotations

import numpy as np

from tinypeft.ir import Operation
from tinypeft.kernels.base import Kernel, Target
from tinypeft.kernels.dsp.rows import is_limited, row_call, row_cycles, whole_rows
from tinypeft.ops.mul import Mul


def offers(op: Operation, target: Target) -> list[Kernel] | str:
    """Its kernel for a product, or why there is none."""
    broadcast = whole_rows(op)
    if isinstance(broadcast, str):
        return broadcast
    operator = op.op
    assert isinstance(operator, Mul)
    p = operator.parameters(op)
    right = -p["output_shift"] if p["output_multiplier"] else 1
    if not 1 <= right <= 31:
        return "no kernel for products whose scale is more than half of the output's"
    fields = {
        "offsets1": twice(p["input1_offset"]),
        "offsets2": twice(p["input2_offset"]),
        "multiplier": p["output_multiplier"],
        "shift": right,
        "output_offset": p["output_offset"],
    }
    call = row_call(op, "tp_mul_dsp", "tp_mul_dsp_params", broadcast, p, fields)
    cycles = row_cycles(broadcast, 16.8 if is_limited(p) else 11, 130)
    form = "four elements at a time"
    return [Kernel("dsp", form, call, ("dsp/tp_mul_dsp.c",), cycles=cycles, code_bytes=500, in_order=True)]


def twice(value: int) -> int:
    """An int16 in both halves of an int32."""
    half = value & 0xFFFF
    return int(np.array([half | half << 16], np.uint32).view(np.int32)[0])
