"""SOFTMAX: exponentials of all differences of two int8 from a table."""

from __future__ import annotations

import numpy as np

from tinypeft.arithmetic import exp_on_negative_values, requantize_double
from tinypeft.ir import Operation
from tinypeft.kernels.base import Kernel, Target
from tinypeft.ops.base import CArray, KernelCall


def offers(op: Operation, target: Target) -> list[Kernel] | str:
    """Its kernel for a softmax, or why there is none."""
    if "input_shift" in op.inputs:
        return "no kernel for a softmax whose input scale changes at run time"
    portable = op.op.call(op)
    assert portable is not None
    rows, depth = portable.fields["rows"], portable.fields["depth"]
    table = exponentials(portable.fields["input_multiplier"], portable.fields["input_left_shift"])
    fields = {"rows": rows, "depth": depth, "exponentials": CArray("int32_t", table, "exponentials")}
    call = KernelCall("tp_softmax_table_s8", "tp_softmax_table_params", fields, [op.inputs["input"], op.output])
    cycles = 40 + rows * (320 + 37 * depth)
    form = "a table of exponentials"
    sources = ("dsp/tp_softmax_dsp.c",)
    return [Kernel("dsp", form, call, sources, cycles=cycles, code_bytes=450, table_bytes=table.nbytes, in_order=True)]


def exponentials(multiplier: int, shift: int) -> np.ndarray:
    """int32 (256,): the Q0.31 exponential of each difference -i to the largest input; 0 where it does not count."""
    left = min(max(shift, 0), 31)
    difference = -np.arange(256, dtype=np.int64)
    counted = difference >= -((31 << 26) >> left)
    scaled = requantize_double(np.where(counted, difference, 0), multiplier, left)
    return np.where(counted, exp_on_negative_values(scaled), 0).astype(np.int32)
