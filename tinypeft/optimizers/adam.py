"""Adam, and AdamW where settings["weight_decay"] is above 0, with moments in float32."""

from __future__ import annotations

from typing import Any

from tinypeft.ir import Operation, Purpose, Tensor
from tinypeft.ops import OPS
from tinypeft.optimizers.base import Optimizer, Shared, register, state_of


@register
class AdamOptimizer(Optimizer):
    """The operator ADAM; ADAM_STEP moves on the powers of both betas."""

    name = "adam"
    summary = "AdamW: two float moments a parameter"
    reads = ("beta_1", "beta_2", "epsilon", "weight_decay")

    def shared(self, settings: dict[str, Any]) -> Shared:
        powers = {"adam_powers": Tensor("adam_powers", (2,), "float32", Purpose.OPTIMIZER_STATE)}
        betas = {name: settings[name] for name in ("beta_1", "beta_2")}
        step = Operation(OPS["ADAM_STEP"], "adam_step", powers, dict(powers), betas)
        return Shared(powers, {"adam_powers": 1.0}, (step,))

    def states(self, master: Tensor, settings: dict[str, Any]) -> dict[str, Tensor]:
        return {name: state_of(master, name) for name in ("first_moment", "second_moment")}

    def update(
        self,
        master: Tensor,
        gradient: Tensor,
        learning_rate: Tensor,
        states: dict[str, Tensor],
        settings: dict[str, Any],
    ) -> Operation:
        attributes = {name: settings[name] for name in self.reads}
        return self.operation("ADAM", master, gradient, learning_rate, states, attributes)
