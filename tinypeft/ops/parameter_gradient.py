"""What the operators share that give a parameter's gradient: exact integer sums over positions, row by row in C."""

from __future__ import annotations

import numpy as np

from tinypeft import arithmetic
from tinypeft.arithmetic import F32
from tinypeft.ir import Operation
from tinypeft.ops.base import BlockFloat, Op, RowFunction, Value


class ParameterGradient(Op):
    """The gradient of a parameter, bfp32 of its master's shape, from the gradient `d_output` and perhaps `source`.

    What it gives is in units that the update knows: times the attributes `row_scale`, float32 (rows,), and `scale`,
    float32 (1,), times element `unit_index` of the operand `unit`, times the operand `channel_unit` (rows,), each where
    there is one. No gradient is stored: UPDATE_ROWS takes one row at a time.
    """

    optional = ("unit", "channel_unit")
    results = ("gradient",)

    def reach(self, op: Operation) -> int:
        """The largest |sum| over the largest |mantissa| of `d_output`."""
        raise NotImplementedError

    def total(self, op: Operation, values: dict[str, Value]) -> np.ndarray:
        """The exact sums, int64, of any shape of the right size."""
        raise NotImplementedError

    def row_function(self, op: Operation) -> RowFunction:
        """The C function that computes a row of the sums."""
        raise NotImplementedError

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"gradient": op.output.shape}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        d_output: BlockFloat = values["d_output"]
        shift = arithmetic.narrow_shift(d_output.peak * self.reach(op), arithmetic.INT32_MAX)
        total = arithmetic.round_half_up_shift(self.total(op, values), shift).astype(np.int32)
        return {"gradient": BlockFloat(total.reshape(op.output.shape), d_output.exponent + shift)}


def uniform_scale(op: Operation) -> np.float32:
    """The attribute `scale` of a parameter's gradient; 1 where it has none."""
    return F32(np.asarray(op.attributes.get("scale", 1.0)).reshape(-1)[0])


def row_factors(op: Operation, values: dict[str, Value], exponent: int) -> np.ndarray:
    """float32 (rows,): what a mantissa of each row of a parameter's gradient is worth."""
    scales = np.broadcast_to(op.attributes.get("row_scale", F32(1.0)), op.output.shape[0]) * uniform_scale(op)
    factors = arithmetic.exp2i(exponent) * scales
    if "unit" in op.inputs:
        factors = factors * F32(values["unit"][op.attributes["unit_index"]])
    if "channel_unit" in op.inputs:
        factors = factors * values["channel_unit"]
    return factors.astype(np.float32)
