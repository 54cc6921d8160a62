"""Stochastic gradient descent, with momentum where settings["momentum"] is above 0."""

from __future__ import annotations

from typing import Any

from tinypeft.ir import Operation, Purpose, Tensor
from tinypeft.ops import OPS
from tinypeft.optimizers.base import Optimizer, register


@register
class SgdOptimizer(Optimizer):
    """The operator SGD."""

    name = "sgd"

    def states(self, master: Tensor, settings: dict[str, Any]) -> dict[str, Tensor]:
        if not settings.get("momentum"):
            return {}
        velocity = Tensor(f"{master.name}_velocity", master.shape, "float32", Purpose.OPTIMIZER_STATE)
        return {"velocity": velocity}

    def update(
        self,
        master: Tensor,
        gradient: Tensor,
        learning_rate: Tensor,
        states: dict[str, Tensor],
        settings: dict[str, Any],
    ) -> Operation:
        inputs = {"gradient": gradient, "learning_rate": learning_rate, "master": master, **states}
        attributes = {"momentum": settings.get("momentum", 0.0)}
        return Operation(OPS["SGD"], f"{master.name}_update", inputs, {"master": master, **states}, attributes)
