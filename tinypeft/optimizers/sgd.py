"""Stochastic gradient descent, with momentum where settings["momentum"] is above 0."""

from __future__ import annotations

from typing import Any

from tinypeft.ir import Operation, Tensor
from tinypeft.optimizers.base import Optimizer, register, state_of


@register
class SgdOptimizer(Optimizer):
    """The operator SGD."""

    name = "sgd"
    summary = "plain, with momentum or Nesterov's; no state of its own without"
    reads = ("momentum", "nesterov", "weight_decay")

    def states(self, master: Tensor, settings: dict[str, Any]) -> dict[str, Tensor]:
        return {"velocity": state_of(master, "velocity")} if settings["momentum"] else {}

    def update(
        self,
        master: Tensor,
        gradient: Tensor,
        learning_rate: Tensor,
        states: dict[str, Tensor],
        settings: dict[str, Any],
    ) -> Operation:
        attributes = {name: settings[name] for name in self.reads}
        return self.operation("SGD", master, gradient, learning_rate, states, attributes)
