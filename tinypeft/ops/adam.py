"""ADAM and ADAM_STEP: Adam with decoupled weight decay, its moments in float32."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinypeft.arithmetic import F32, limit_float, sqrt_f32
from tinypeft.ir import Operation
from tinypeft.ops.base import KernelCall, Op, RowFunction, Value, register
from tinypeft.ops.update import Update


@register
class AdamStep(Op):
    """powers *= (beta_1, beta_2): once before the updates of a step, so that they are beta**t in step t."""

    name = "ADAM_STEP"
    operands = ("adam_powers",)
    results = ("adam_powers",)
    source = "tp_adam.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"adam_powers": (2,)}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        betas = np.array([op.attributes["beta_1"], op.attributes["beta_2"]], np.float32)
        return {"adam_powers": values["adam_powers"] * betas}

    def call(self, op: Operation) -> KernelCall:
        fields = {"beta_1": F32(op.attributes["beta_1"]), "beta_2": F32(op.attributes["beta_2"])}
        return KernelCall("tp_adam_step_f32", "tp_adam_step_params", fields, [op.inputs["adam_powers"]])


def step_size(learning_rate: np.float32, powers: np.ndarray) -> np.float32:
    """The learning rate with both moments' bias corrected: learning_rate * sqrt(1 - beta_2**t) / (1 - beta_1**t)."""
    one = F32(1.0)
    return F32(F32(learning_rate) * sqrt_f32(one - powers[1]) / (one - powers[0]))


def moments(
    op: Operation, gradient: np.ndarray, first: np.ndarray, second: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The running means of gradient and gradient**2, moved on by `gradient`; within +-2**20, not a number 0."""
    gain_1, gain_2 = F32(1 - op.attributes["beta_1"]), F32(1 - op.attributes["beta_2"])
    moved = limit_float(first + (gradient - first) * gain_1)
    return moved, limit_float(second + (gradient * gradient - second) * gain_2)


def descended(
    op: Operation, master: np.ndarray, learning_rate: np.float32, size: np.float32, first: np.ndarray, root: np.ndarray
) -> np.ndarray:
    """The decayed master less size * first / (root + epsilon), where `root` is that of the second moment."""
    weight_decay = F32(op.attributes["weight_decay"])
    if weight_decay != 0:
        master = master - (F32(learning_rate) * weight_decay) * master
    return limit_float(master - (size * first) / (root + F32(op.attributes["epsilon"])))


def adam_fields(op: Operation) -> dict[str, Any]:
    """The fields of tp_adam_params."""
    return {
        "gain_1": F32(1 - op.attributes["beta_1"]),
        "gain_2": F32(1 - op.attributes["beta_2"]),
        "epsilon": F32(op.attributes["epsilon"]),
        "weight_decay": F32(op.attributes["weight_decay"]),
    }


@register
class Adam(Update):
    """Keras's Adam, and AdamW where there is a weight decay; `epsilon` is the paper's epsilon hat.

    first += (gradient - first) * (1 - beta_1); second += (gradient**2 - second) * (1 - beta_2);
    master -= learning_rate * weight_decay * master; master -= step_size * first / (sqrt(second) + epsilon).
    """

    name = "ADAM"
    operands = (*Update.operands, "first_moment", "second_moment", "adam_powers")
    results = ("master", "first_moment", "second_moment")
    source = "tp_adam.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return dict.fromkeys(self.results, op.inputs["gradient"].shape)

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        rate = values["learning_rate"]
        with np.errstate(all="ignore"):
            size = step_size(rate, values["adam_powers"])
            first, second = moments(op, values["gradient"], values["first_moment"], values["second_moment"])
            master = descended(op, values["master"], rate, size, first, sqrt_f32(second))
        return {"master": master, "first_moment": first, "second_moment": second}

    def row_function(self, op: Operation) -> RowFunction:
        states = tuple(op.inputs[name] for name in ("first_moment", "second_moment", "adam_powers"))
        return RowFunction("tp_adam_f32", "tp_adam_params", adam_fields(op), states)
