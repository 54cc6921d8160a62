"""SGD: one update of float32 masters, with momentum where a velocity is given."""

from __future__ import annotations

import numpy as np

from tinypeft.arithmetic import limit_float
from tinypeft.ir import Operation
from tinypeft.ops.base import Op, RowFunction, Value, register


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

    def row_function(self, op: Operation) -> RowFunction:
        velocity = (op.inputs["velocity"],) if "velocity" in op.inputs else ()
        return RowFunction(
            "tp_sgd_f32", "tp_sgd_params", {"momentum": np.float32(op.attributes.get("momentum", 0.0))}, velocity
        )

    def skips_zero(self, op: Operation) -> bool:
        return "velocity" not in op.inputs
