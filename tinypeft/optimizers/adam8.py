"""Adam with moments in 8 bits: 2 bytes an element and 8 a block of up to 64 elements, where Adam has 8 an element."""

from __future__ import annotations

from typing import Any

from tinypeft.ir import Operation, Tensor
from tinypeft.ops.adam8 import block_shape
from tinypeft.optimizers.adam import AdamOptimizer
from tinypeft.optimizers.base import register, state_of


@register
class Adam8Optimizer(AdamOptimizer):
    """The operator ADAM8; ADAM for biases, where a row is one element and scales would take more than they save."""

    name = "adam8"
    summary = "the same with moments of 8 bits, a scale a row"

    def states(self, master: Tensor, settings: dict[str, Any]) -> dict[str, Tensor]:
        if _row_is_one_element(master):
            return super().states(master, settings)
        blocks = block_shape(master.shape)
        return {
            "first_moment": state_of(master, "first_moment", "int8"),
            "second_moment": state_of(master, "second_moment", "uint8"),
            "first_scale": state_of(master, "first_scale", shape=blocks),
            "second_scale": state_of(master, "second_scale", shape=blocks),
        }

    def update(
        self,
        master: Tensor,
        gradient: Tensor,
        learning_rate: Tensor,
        states: dict[str, Tensor],
        settings: dict[str, Any],
    ) -> Operation:
        attributes = {name: settings[name] for name in self.reads}
        kind = "ADAM" if _row_is_one_element(master) else "ADAM8"
        return self.operation(kind, master, gradient, learning_rate, states, attributes)


def _row_is_one_element(master: Tensor) -> bool:
    return master.size == master.shape[0]
