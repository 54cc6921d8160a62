"""Elementwise operators as rows of elements that adjoin in both operands."""

from __future__ import annotations

import math
from typing import Any

from tinypeft.ir import Operation
from tinypeft.ops.activation import INT8_MAX, INT8_MIN
from tinypeft.ops.base import KernelCall
from tinypeft.ops.broadcast import Broadcast, make_broadcast

#: Of rows shorter than this the portable kernel is as good.
_SHORT = 4


def whole_rows(op: Operation) -> Broadcast | str:
    """How the operands `input1` and `input2` are broadcast, or why their rows do not suit."""
    broadcast = make_broadcast(op.inputs["input1"].shape, op.inputs["input2"].shape)
    assert broadcast is not None
    if not broadcast.extents or any(strides[-1] != 1 for strides in broadcast.strides):
        return "no kernel where an operand is repeated along the last dimension"
    if broadcast.extents[-1] < _SHORT:
        return f"no kernel for rows of {broadcast.extents[-1]} elements"
    return broadcast


def row_cycles(broadcast: Broadcast, element: float, row: int) -> int:
    """Cycles where an element takes `element`, and a row `row` besides."""
    rows = math.prod(broadcast.extents[:-1])
    return round(rows * (broadcast.extents[-1] * element + row)) + 40


def row_call(
    op: Operation, function: str, struct: str, broadcast: Broadcast, parameters: dict[str, int], fields: dict[str, Any]
) -> KernelCall:
    """The call of a function on both operands, with `fields` between the broadcast and the activation's limits."""
    limits = {name: parameters[name] for name in ("activation_min", "activation_max")}
    arguments = [op.inputs["input1"], op.inputs["input2"], op.output]
    return KernelCall(function, struct, {"broadcast": broadcast.fields(), **fields, **limits}, arguments)


def is_limited(parameters: dict[str, int]) -> bool:
    """Whether the activation has limits of its own, which results of the range of int8 are clamped to."""
    return (parameters["activation_min"], parameters["activation_max"]) != (INT8_MIN, INT8_MAX)
