"""Updates: the operation that computes a parameter's gradient in, one that updates the parameter by it out."""

from __future__ import annotations

from typing import Any

from tinypeft.adapters import AdaptedGraph, Parameter
from tinypeft.ir import Operation, Purpose, Tensor
from tinypeft.ops import OPS
from tinypeft.optimizers import OPTIMIZERS


class Updates:
    """Makes UPDATE_ROWS of gradients: a parameter's update, or its sum until the batch is complete.

    `operations` are those of the update graph, where batches have more than one sample.
    """

    def __init__(self, adapted: AdaptedGraph, config: Any, learning_rate: Tensor):
        self.optimizer = OPTIMIZERS[config.optimizer]
        self.settings = {"momentum": config.momentum}
        self.adapted, self.learning_rate = adapted, learning_rate
        self.batched = config.batch_size > 1
        self.count = Tensor("count", (), "int32", Purpose.ARGUMENT)
        self.operations: list[Operation] = []

    def consume(self, parameter: Parameter, producer: Operation) -> Operation:
        """What runs instead of `producer`, which computes the parameter's gradient."""
        master, gradient = parameter.master, producer.output
        if not self.batched:
            return _update_rows(producer, self._update(master, gradient), parameter.row_peak)
        total = Tensor(f"{master.name}_sum", master.shape, "float32", Purpose.OPTIMIZER_STATE)
        self._start_at_zero(total)
        mean = Tensor(f"{master.name}_mean", master.shape, "float32", Purpose.GRADIENT)
        update = self._update(master, mean)
        inputs = {"count": self.count, "sums": total, **_beside_gradient(update)}
        outputs = {**update.outputs, "sums": total}
        if parameter.row_peak is not None:
            inputs["row_peak"] = outputs["row_peak"] = parameter.row_peak
        operation = Operation(OPS["UPDATE_FROM_SUMS"], update.name, inputs, outputs, {"update": update})
        self.operations.append(operation)
        operands = {"gradient": gradient, "master": total}
        name = f"{master.name}_accumulate"
        return _update_rows(producer, Operation(OPS["ACCUMULATE_GRADIENT"], name, operands, {"master": total}))

    def _update(self, master: Tensor, gradient: Tensor) -> Operation:
        states = self.optimizer.states(master, self.settings)
        for state in states.values():
            self._start_at_zero(state)
        return self.optimizer.update(master, gradient, self.learning_rate, states, self.settings)

    def _start_at_zero(self, state: Tensor) -> None:
        initialize = Operation(
            OPS["INITIALIZE_CONSTANT"], f"{state.name}_initialize", {}, {"state": state}, {"value": 0.0}
        )
        self.adapted.initializers.append(initialize)
        self.adapted.restorers.append(initialize)


def _beside_gradient(update: Operation) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in update.inputs.items() if name != "gradient"}


def _update_rows(producer: Operation, update: Operation, row_peak: Tensor | None = None) -> Operation:
    """UPDATE_ROWS of both operations."""
    inputs, outputs = {**producer.inputs, **_beside_gradient(update)}, dict(update.outputs)
    if row_peak is not None:
        inputs["row_peak"] = outputs["row_peak"] = row_peak
    attributes = {"gradient": producer, "update": update}
    return Operation(OPS["UPDATE_ROWS"], update.name, inputs, outputs, attributes, producer.layer)
