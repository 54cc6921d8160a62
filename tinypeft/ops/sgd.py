"""SGD: one update of float32 masters, with momentum where a velocity is given."""

from __future__ import annotations

import numpy as np

from tinypeft.arithmetic import limit_float
from tinypeft.ir import Operation
from tinypeft.ops.base import KernelCall, Op, Value, register


@register
class Sgd(Op):
    """velocity = momentum * velocity + gradient; master -= learning_rate * velocity (or gradient without one).

    Both are kept within +-2**20, and not a number becomes 0, so that diverged training is the same on every device.
    """

    name = "SGD"
    operands = ("gradient", "learning_rate", "master")
    optional = ("velocity",)
    results = ("master", "velocity")
    source = "tp_optimizer.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"master": op.inputs["gradient"].shape}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        step, results = values["gradient"], {}
        with np.errstate(over="ignore", invalid="ignore"):
            if "velocity" in op.inputs:
                step = limit_float(np.float32(op.attributes["momentum"]) * values["velocity"] + values["gradient"])
                results["velocity"] = step
            return {"master": limit_float(values["master"] - np.float32(values["learning_rate"]) * step), **results}

    def call(self, op: Operation) -> KernelCall:
        fields = {"size": op.output.size, "momentum": np.float32(op.attributes.get("momentum", 0.0))}
        inputs = op.inputs
        arguments = [inputs["gradient"], inputs["learning_rate"], inputs["master"], inputs.get("velocity")]
        return KernelCall("tp_sgd_f32", "tp_sgd_params", fields, arguments)
