"""ACCUMULATE_GRADIENT and TAKE_MEAN: batches larger than one sample by summing float32 gradients."""

from __future__ import annotations

import numpy as np

from tinypeft.arithmetic import limit_float
from tinypeft.ir import Operation
from tinypeft.ops.base import KernelCall, Op, Value, register


@register
class AccumulateGradient(Op):
    """sum += gradient."""

    name = "ACCUMULATE_GRADIENT"
    operands = ("gradient", "sum")
    results = ("sum",)
    source = "tp_optimizer.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"sum": op.inputs["gradient"].shape}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        return {"sum": values["sum"] + values["gradient"]}

    def call(self, op: Operation) -> KernelCall:
        arguments = [op.inputs["gradient"], op.inputs["sum"]]
        return KernelCall("tp_accumulate_f32", "tp_accumulate_params", {"size": op.output.size}, arguments)


@register
class TakeMean(Op):
    """mean = sum / count (0 where count is 0), limited after the product with `factor`, if given; sum = 0."""

    name = "TAKE_MEAN"
    operands = ("count", "sum")
    optional = ("factor",)
    results = ("mean", "sum")
    source = "tp_optimizer.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return dict.fromkeys(self.results, op.inputs["sum"].shape)

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        count, total = int(values["count"]), values["sum"]
        mean = total / np.float32(count) if count > 0 else np.zeros_like(total)
        if "factor" in op.inputs:
            with np.errstate(all="ignore"):
                mean = limit_float(mean * values["factor"])
        return {"mean": mean, "sum": np.zeros_like(total)}

    def call(self, op: Operation) -> KernelCall:
        arguments = [op.inputs["count"], op.inputs.get("factor"), op.inputs["sum"], op.outputs["mean"]]
        return KernelCall("tp_take_mean_f32", "tp_accumulate_params", {"size": op.output.size}, arguments)
