"""ACCUMULATE_GRADIENT: batches larger than one sample, by summing float32 gradients."""

from __future__ import annotations

import numpy as np

from tinypeft.ir import Operation
from tinypeft.ops.base import Op, RowFunction, Value, register


@register
class AccumulateGradient(Op):
    """master += gradient, where `master` is the sum; called by UPDATE_ROWS as an optimiser is."""

    name = "ACCUMULATE_GRADIENT"
    operands = ("gradient", "master")
    results = ("master",)
    source = "tp_optimizer.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"master": op.inputs["gradient"].shape}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        with np.errstate(over="ignore", invalid="ignore"):
            return {"master": values["master"] + values["gradient"]}

    def row_function(self, op: Operation) -> RowFunction:
        return RowFunction("tp_accumulate_f32")
