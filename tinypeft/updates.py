"""Updates: the operation that computes a parameter's gradient in, one that updates the parameter by it out."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from tinypeft.adapters import AdaptedGraph, Parameter
from tinypeft.ir import Operation, Purpose, Tensor
from tinypeft.ops import OPS
from tinypeft.optimizers import OPTIMIZERS
from tinypeft.training import TrainingConfig


class Updates:
    """Makes UPDATE_ROWS of gradients: a parameter's update, or its sum until the batch is complete.

    `operations` are those of the update graph, where batches have more than one sample.
    """

    def __init__(self, adapted: AdaptedGraph, config: TrainingConfig, learning_rate: Tensor):
        self.optimizer = OPTIMIZERS[config.optimizer]
        self.settings: dict[str, Any] = asdict(config)
        self.shared = self.optimizer.shared(self.settings)
        self.adapted, self.learning_rate = adapted, learning_rate
        self.batched = config.batch_size > 1
        self.count = Tensor("count", (), "int32", Purpose.ARGUMENT)
        self.clip_norm, self._sums = config.clip_norm, list[Tensor]()
        self.factor = Tensor("clip_factor", (1,), "float32", Purpose.GRADIENT)
        self.operations: list[Operation] = []
        for name, state in self.shared.states.items():
            self._start(state, "INITIALIZE_CONSTANT", {"value": self.shared.starts[name]})
        self._retrained: dict[int, Operation] = {}

    def first(self) -> list[Operation]:
        """What runs once before the updates of a step."""
        operations = list(self.shared.operations)
        if self.clip_norm:
            inputs = {"count": self.count, **{f"sum{i}": total for i, total in enumerate(self._sums)}}
            attributes = {"clip_norm": self.clip_norm}
            operations.append(Operation(OPS["CLIP_FACTOR"], "clip", inputs, {"factor": self.factor}, attributes))
        return operations

    def quantizers(self) -> list[Operation]:
        """What makes adapter weights of the masters once these were updated, and updates those that are left."""
        operations = []
        for op in self.adapted.quantizers:
            producer = self._retrained.get(id(op.inputs.get("master_filter")))
            operations.append(op if producer is None else self._retrain(op, producer))
        return operations

    def _retrain(self, quantizer: Operation, producer: Operation) -> Operation:
        """DENSE_RETRAIN: the quantiser of a layer, and its update by the gradient that `producer` would give."""
        inputs = {**producer.inputs, "learning_rate": self.learning_rate, **quantizer.inputs}
        outputs = {"master_filter": quantizer.inputs["master_filter"], **quantizer.outputs}
        attributes = {**quantizer.attributes, "scale": np.asarray(producer.attributes["scale"]).reshape(-1)[0]}
        name = f"{producer.name}_retrain"
        return Operation(OPS["DENSE_RETRAIN"], name, inputs, outputs, attributes, quantizer.layer)

    def consume(self, parameter: Parameter, producer: Operation) -> Operation | None:
        """What runs instead of `producer`, which computes the parameter's gradient; None where a quantiser does it."""
        master, gradient = parameter.master, producer.output
        if not self.batched:
            update = self._update(master, gradient)
            if _is_outer_product(parameter, producer, update):
                self._retrained[id(master)] = producer
                return None
            return _update_rows(producer, update, parameter)
        total = Tensor(f"{master.name}_sum", master.shape, "float32", Purpose.OPTIMIZER_STATE)
        self._start(total, "INITIALIZE_ZERO")
        self._sums.append(total)
        mean = Tensor(f"{master.name}_mean", master.shape, "float32", Purpose.GRADIENT)
        update = self._update(master, mean)
        inputs = {"count": self.count, "sums": total, **_beside_gradient(update), **_row_state(parameter)}
        if self.clip_norm:
            inputs["factor"] = self.factor
        outputs = {**update.outputs, "sums": total, **_row_state(parameter)}
        operation = Operation(OPS["UPDATE_FROM_SUMS"], update.name, inputs, outputs, {"update": update})
        self.operations.append(operation)
        operands = {"gradient": gradient, "master": total}
        name = f"{master.name}_accumulate"
        return _update_rows(producer, Operation(OPS["ACCUMULATE_GRADIENT"], name, operands, {"master": total}))

    def _update(self, master: Tensor, gradient: Tensor) -> Operation:
        states = self.optimizer.states(master, self.settings)
        for state in states.values():
            self._start(state, "INITIALIZE_ZERO")
        every = states | self.shared.states
        return self.optimizer.update(master, gradient, self.learning_rate, every, self.settings)

    def _start(self, state: Tensor, kind: str, attributes: dict[str, Any] | None = None) -> None:
        """Have the operator `kind` start a state wherever an adapter is initialised or restored."""
        operation = Operation(OPS[kind], f"{state.name}_initialize", {}, {"state": state}, attributes or {})
        self.adapted.initializers.append(operation)
        self.adapted.restorers.append(operation)


def _beside_gradient(update: Operation) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in update.inputs.items() if name != "gradient"}


def _is_outer_product(parameter: Parameter, producer: Operation, update: Operation) -> bool:
    """Whether a retrained dense layer of one position learns by plain SGD: only what its input touches changes."""
    if parameter.row_changed is None or producer.kind != "CONV_2D_BACKWARD_FILTER" or update.kind != "SGD":
        return False
    one_position = producer.output.size == producer.inputs["d_output"].size * producer.inputs["source"].size
    return update.op.skips_zero(update) and one_position and len(producer.inputs) == 2


def _row_state(parameter: Parameter) -> dict[str, Tensor]:
    return {} if parameter.row_changed is None else {"row_changed": parameter.row_changed}


def _update_rows(producer: Operation, update: Operation, parameter: Parameter | None = None) -> Operation:
    """UPDATE_ROWS of both operations; `parameter` where it is its master that is updated."""
    row_state = {} if parameter is None else _row_state(parameter)
    inputs = {**producer.inputs, **_beside_gradient(update), **row_state}
    attributes: dict[str, Any] = {"gradient": producer, "update": update}
    outputs = {**update.outputs, **row_state}
    return Operation(OPS["UPDATE_ROWS"], update.name, inputs, outputs, attributes, producer.layer)
