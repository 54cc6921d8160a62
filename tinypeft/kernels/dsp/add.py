"""ADD and SUB: one linear form of both operands where that is proved for all 65,536 pairs, else a table for each.

The definition rounds five times. With factors of some 28 bits, start + (factor1*input1 >> 8) + (factor2*input2 >> 8)
can nearly always be made to have the same high bits for every pair of operands; the search checks every one.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from tinypeft.ir import Operation
from tinypeft.kernels.base import Kernel, Target
from tinypeft.kernels.dsp.rows import is_limited, row_call, row_cycles, whole_rows
from tinypeft.ops.activation import INT8_MAX, INT8_MIN
from tinypeft.ops.add import Sum
from tinypeft.ops.base import CArray
from tinypeft.ops.binary import aligned_terms

SOURCES = ("dsp/tp_add_dsp.c",)
#: TP_PLANE_SHIFT of tp_kernels_dsp_elementwise.h, and what inputs are shifted to the left by themselves.
SHIFT, INPUT_SHIFT = 20, 8
_STEPS = 200


@dataclass(frozen=True)
class Plane:
    """output = clamp((start + (factor1*input1 >> 8) + (factor2*input2 >> 8)) >> SHIFT)."""

    factor1: int
    factor2: int
    start: int


def offers(op: Operation, target: Target) -> list[Kernel] | str:
    """Its kernels for a sum or difference, or why there is none."""
    broadcast = whole_rows(op)
    if isinstance(broadcast, str):
        return broadcast
    operator = op.op
    assert isinstance(operator, Sum)
    parameters = operator.parameters(op)
    plane = find_plane(op)
    if plane is not None:
        call = row_call(op, "tp_add_plane_dsp", "tp_add_plane_params", broadcast, parameters, asdict(plane))
        cycles = row_cycles(broadcast, 13.7 if is_limited(parameters) else 6.6, 100)
        return [Kernel("dsp", "one linear form", call, SOURCES, cycles=cycles, code_bytes=500, in_order=True)]
    right = -parameters["output_shift"]
    if not 1 <= right <= 31:
        return "no kernel for sums whose output scale is next to nothing"
    terms = _terms(op)
    fields = {
        "terms1": CArray("int32_t", 2 * terms[0], "terms1"),
        "terms2": CArray("int32_t", 2 * terms[1], "terms2"),
        "multiplier": parameters["output_multiplier"],
        "shift": right,
        "output_offset": parameters["output_offset"],
    }
    call = row_call(op, "tp_add_terms_dsp", "tp_add_terms_params", broadcast, parameters, fields)
    cycles = row_cycles(broadcast, 21, 80)
    form = "a table of terms for each operand"
    return [Kernel("dsp", form, call, SOURCES, cycles=cycles, code_bytes=250, table_bytes=2048, in_order=True)]


def find_plane(op: Operation) -> Plane | None:
    """A linear form that gives the operation's output for all operands; None where none is found."""
    operator = op.op
    assert isinstance(operator, Sum)
    p = operator.parameters(op)
    x = np.arange(INT8_MIN, INT8_MAX + 1, dtype=np.int64)
    wanted = operator.evaluate(op, {"input1": x[:, None], "input2": x[None, :]})["output"].astype(np.int64)
    scale1, scale2 = (_real(p, name) * _real(p, "output") * (1 << p["left_shift"]) for name in ("input1", "input2"))
    factors = np.array([scale1, operator.sign * scale2]) * (1 << SHIFT + INPUT_SHIFT)
    if np.abs(factors).max() >= 1 << 30:
        return None
    above, below = wanted > p["activation_min"], wanted < p["activation_max"]
    for _ in range(_STEPS):
        factor1, factor2 = (int(f) for f in np.rint(factors))
        sums = (factor1 * x[:, None] >> INPUT_SHIFT) + (factor2 * x[None, :] >> INPUT_SHIFT)
        least = np.where(above, (wanted << SHIFT) - sums, -(1 << 40))
        most = np.where(below, (wanted + 1 << SHIFT) - 1 - sums, 1 << 40)
        at_least, at_most = np.unravel_index(least.argmax(), least.shape), np.unravel_index(most.argmin(), most.shape)
        first, last = int(least[at_least]), int(most[at_most])
        if first <= last:
            start = (first + last) // 2 if first > -(1 << 40) and last < 1 << 40 else max(first, min(last, 0))
            fits = max(abs(int(sums.min()) + start), abs(int(sums.max()) + start)) < 1 << 31
            return Plane(factor1, factor2, start) if fits and abs(start) < 1 << 31 else None
        # the sum at one pair must rise against that at the other by first - last
        rise = np.array([x[at_least[0]] - x[at_most[0]], x[at_least[1]] - x[at_most[1]]], np.float64)
        length = float(rise @ rise)
        if length == 0.0:
            return None
        factors = factors + rise * ((first - last) * 1.02 + 1) * (1 << INPUT_SHIFT) / length
    return None


def _real(parameters: dict[str, int], name: str) -> float:
    return parameters[f"{name}_multiplier"] / 2.0**31 * 2.0 ** parameters[f"{name}_shift"]


def _terms(op: Operation) -> list[np.ndarray]:
    """int64 (256,) of each operand, by its bits as uint8; the second with the sign of the operator."""
    operator = op.op
    assert isinstance(operator, Sum)
    every = np.arange(256, dtype=np.uint8).view(np.int8)
    first, second = aligned_terms(operator.parameters(op), {"input1": every, "input2": every})
    return [first, operator.sign * second]
