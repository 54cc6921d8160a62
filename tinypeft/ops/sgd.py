"""SGD: one update of float32 masters, with momentum where a velocity is given."""

from __future__ import annotations

import numpy as np

from tinypeft.arithmetic import F32, limit_float
from tinypeft.ir import Operation
from tinypeft.ops.base import RowFunction, Value, register
from tinypeft.ops.update import Update


@register
class Sgd(Update):
    """velocity = momentum * velocity + gradient; master -= learning_rate * velocity (or gradient without one).

    As PyTorch's SGD: weight_decay * master joins the gradient first, and with `nesterov` the step is
    gradient + momentum * velocity. Both are kept within +-2**20, and not a number becomes 0, so that diverged training
    is the same on every device.
    """

    name = "SGD"
    optional = ("velocity",)
    results = ("master", "velocity")
    source = "tp_optimizer.c"

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        momentum, weight_decay = F32(op.attributes["momentum"]), F32(op.attributes["weight_decay"])
        master, step, results = values["master"], values["gradient"], {}
        with np.errstate(all="ignore"):
            if weight_decay != 0:
                step = step + weight_decay * master
            if "velocity" in op.inputs:
                velocity = limit_float(momentum * values["velocity"] + step)
                step = step + momentum * velocity if op.attributes["nesterov"] else velocity
                results["velocity"] = velocity
            return {"master": limit_float(master - F32(values["learning_rate"]) * step), **results}

    def row_function(self, op: Operation) -> RowFunction:
        fields = {
            "momentum": F32(op.attributes["momentum"]),
            "weight_decay": F32(op.attributes["weight_decay"]),
            "nesterov": int(op.attributes["nesterov"]),
        }
        states = (op.inputs["velocity"],) if "velocity" in op.inputs else ()
        return RowFunction("tp_sgd_f32", "tp_sgd_params", fields, states)

    def skips_zero(self, op: Operation) -> bool:
        return "velocity" not in op.inputs and not op.attributes["weight_decay"]
