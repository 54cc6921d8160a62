"""Differentiate: forward graph with logits in, training graph out, pruned to what the trained parameters need."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tinypeft.adapters import AdaptedGraph, Parameter
from tinypeft.errors import AdapterError, ModelError
from tinypeft.ir import Graph, Operation, Purpose, Tensor
from tinypeft.losses import LABEL, LOSSES
from tinypeft.ops import OPS
from tinypeft.ops.activation import output_range
from tinypeft.ops.loss import LossOp
from tinypeft.optimizers import OPTIMIZERS

MAX_BATCH, MAX_CLASS_WEIGHT = 65535, 65536


@dataclass(frozen=True)
class TrainingConfig:
    """optimizer: a name in OPTIMIZERS; batch_size: samples whose gradients are averaged before an update.

    loss: a name in LOSSES; target: of what the loss allows, what it is computed against.
    label_smoothing, class_weights (one a class, or none): of softmax_cross_entropy, as in Keras.
    """

    optimizer: str = "sgd"
    momentum: float = 0.0
    batch_size: int = 1
    loss: str = "softmax_cross_entropy"
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] = ()
    target: str = LABEL

    def __post_init__(self) -> None:
        """Raise AdapterError for a setting outside its limits."""
        if self.optimizer not in OPTIMIZERS:
            raise AdapterError(f"there is no optimizer {self.optimizer}", f"one of: {', '.join(sorted(OPTIMIZERS))}")
        if not 0 <= self.momentum < 1:
            raise AdapterError(
                f"momentum is {self.momentum:g}, it must be at least 0 and below 1", "try --momentum 0.9"
            )
        if not 1 <= self.batch_size <= MAX_BATCH:
            raise AdapterError(
                f"batch_size is {self.batch_size}, the limits are 1 and {MAX_BATCH}", "try --batch-size 4"
            )
        self._check_loss()

    def _check_loss(self) -> None:
        if self.loss not in LOSSES:
            raise AdapterError(f"there is no loss {self.loss}", f"one of: {', '.join(sorted(LOSSES))}")
        targets = LOSSES[self.loss].targets
        if self.target not in targets:
            raise AdapterError(
                f"{self.loss} cannot be computed against the target {self.target}, only {' or '.join(targets)}",
                f"try --target {targets[0]}",
            )
        if not 0 <= self.label_smoothing < 1:
            raise AdapterError(
                f"label_smoothing is {self.label_smoothing:g}, it must be at least 0 and below 1",
                "try --label-smoothing 0.1",
            )
        outside = [weight for weight in self.class_weights if not 0 <= weight <= MAX_CLASS_WEIGHT]
        if outside:
            raise AdapterError(
                f"class_weights has {outside[0]:g}, the limits are 0 and {MAX_CLASS_WEIGHT}", "try --class-weights 1,2"
            )
        if (self.label_smoothing or self.class_weights) and self.target != LABEL:
            raise AdapterError(
                f"label_smoothing and class_weights are of losses against a label, {self.loss} has none",
                "leave them out",
            )


def differentiate(
    forward: Graph, logits: Tensor, adapted: AdaptedGraph, config: TrainingConfig
) -> tuple[Graph, Graph | None]:
    """The training graph and, for batches of more than one sample, the update graph.

    The training graph takes (input, label or target vector if any, learning_rate) and gives the loss; each parameter's
    update follows its gradient, and the adapter is quantised at the end. With a batch size above 1 it sums the
    gradients instead, and the update graph takes (learning_rate, count). Optimiser states join `adapted.initializers`.
    """
    builder = _Builder(forward, adapted)
    target = LOSSES[config.loss].target(forward, logits, config.target)
    learning_rate = Tensor("learning_rate", (), "float32", Purpose.ARGUMENT)
    updates = _Updates(adapted, config, learning_rate)
    loss, d_logits = builder.loss(logits, target, adapted.observers, config)
    builder.backward(forward, logits, d_logits, updates)
    operations = [*builder.operations, *([] if updates.batched else adapted.quantizers)]
    arguments = [t for t in (target,) if t.purpose is Purpose.ARGUMENT] + ([] if updates.batched else [learning_rate])
    training = Graph("training", [*forward.inputs, *arguments], [loss], operations)
    training = _keep_masks(training.pruned())
    update = None
    if updates.batched:
        inputs = [learning_rate, updates.count]
        update = Graph("update", inputs, [], [*updates.operations, *adapted.quantizers])
    return training, update


class _Updates:
    """What follows a parameter's gradient: its update, or its sum until the batch is complete."""

    def __init__(self, adapted: AdaptedGraph, config: TrainingConfig, learning_rate: Tensor):
        self.optimizer = OPTIMIZERS[config.optimizer]
        self.settings: dict[str, Any] = {"momentum": config.momentum}
        self.adapted, self.learning_rate = adapted, learning_rate
        self.batched = config.batch_size > 1
        self.count = Tensor("count", (), "int32", Purpose.ARGUMENT)
        self.operations: list[Operation] = []

    def follow(self, parameter: Parameter, gradient: Tensor) -> Operation:
        """The operation right behind `gradient`."""
        master = parameter.master
        if not self.batched:
            return self._update(master, gradient)
        total = Tensor(f"{master.name}_sum", master.shape, "float32", Purpose.OPTIMIZER_STATE)
        self._start_at_zero(total)
        mean = Tensor(f"{master.name}_mean", master.shape, "float32", Purpose.GRADIENT)
        inputs, outputs = {"count": self.count, "sum": total}, {"mean": mean, "sum": total}
        self.operations.append(Operation(OPS["TAKE_MEAN"], f"{master.name}_take_mean", inputs, outputs))
        self.operations.append(self._update(master, mean))
        operands = {"gradient": gradient, "sum": total}
        return Operation(OPS["ACCUMULATE_GRADIENT"], f"{master.name}_accumulate", operands, {"sum": total})

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


class _Builder:
    """Appends backward operations; the `Builder` that operators' vjp rules write to."""

    def __init__(self, forward: Graph, adapted: AdaptedGraph):
        self.operations = list(forward.operations)
        self._parameters = {id(p.quantized): p for p in adapted.parameters}
        self._names = {t.name for t in forward.tensors()} | {op.name for op in self.operations}
        self._gradients: dict[int, Tensor] = {}
        self._trained = set(self._parameters)
        for op in forward.operations:
            if any(id(t) in self._trained for t in op.inputs.values()):
                self._trained.update(id(t) for t in op.outputs.values())

    def loss(
        self, logits: Tensor, target: Tensor, observers: dict[str, Tensor], config: TrainingConfig
    ) -> tuple[Tensor, Tensor]:
        """Append the loss; returns it and the logits' gradient."""
        d_logits, settings = self.gradient(logits), asdict(config)
        name = self._unique(config.loss)
        operation = LOSSES[config.loss].operation(name, logits, target, d_logits, observers, settings)
        self.operations.append(operation)
        return operation.output, d_logits

    def backward(self, forward: Graph, logits: Tensor, d_logits: Tensor, updates: _Updates) -> None:
        """Append the gradients of `forward`, last operation first, each parameter's update behind its gradient."""
        self._gradients[id(logits)] = d_logits
        for op in reversed(forward.operations):
            d_output = self._gradients.get(id(op.output))
            if d_output is None or not self.needs(op.output):
                continue
            if not op.op.differentiable:
                raise ModelError(
                    f"{op.layer or op.name} is a {op.kind}, through which no gradient can pass",
                    "name only layers behind it with --target-modules",
                )
            for operand, gradient in op.op.vjp(op, d_output, self).items():
                self._receive(op.inputs[operand], gradient, updates)

    def _receive(self, tensor: Tensor, gradient: Tensor, updates: _Updates) -> None:
        parameter = self._parameters.get(id(tensor))
        if parameter is not None:
            producer = next(i for i, op in enumerate(self.operations) if gradient in op.outputs.values())
            self.operations.insert(producer + 1, updates.follow(parameter, gradient))
            return
        existing = self._gradients.get(id(tensor))
        if existing is None:
            self._gradients[id(tensor)] = gradient
            return
        last = self.operations[-1]
        if last.kind == "CONV_2D_BACKWARD_INPUT" and last.output is gradient and "addend" not in last.inputs:
            last.inputs["addend"] = existing
            self._gradients[id(tensor)] = gradient
            return
        total = self.gradient(tensor)
        operands = {"a": existing, "b": gradient}
        self.operations.append(
            Operation(OPS["GRADIENT_ADD"], self._unique(f"{total.name}_add"), operands, {"sum": total})
        )
        self._gradients[id(tensor)] = total

    def emit(
        self,
        kind: str,
        forward: Operation,
        inputs: dict[str, Tensor],
        outputs: dict[str, Tensor],
        attributes: dict[str, Any] | None = None,
    ) -> Operation:
        """Append a backward operation of `forward`."""
        suffix = kind.lower().removeprefix(forward.kind.lower() + "_").removeprefix("conv_2d_").removeprefix("lora_")
        name = self._unique(f"{forward.name}_{suffix}")
        operation = Operation(OPS[kind], name, inputs, outputs, attributes or {}, forward.layer)
        self.operations.append(operation)
        return operation

    def gradient(self, of: Tensor) -> Tensor:
        """A fresh bfp16 tensor."""
        return Tensor(self._unique(f"d_{of.name}"), of.shape, "bfp16", Purpose.GRADIENT)

    def float_gradient(self, of: Tensor) -> Tensor:
        """A fresh float32 tensor shaped like the master behind `of`."""
        master = self._parameters[id(of)].master
        return Tensor(self._unique(f"d_{of.name}"), master.shape, "float32", Purpose.GRADIENT)

    def needs(self, tensor: Tensor | None) -> bool:
        """Whether a trained parameter lies at or below `tensor`."""
        return tensor is not None and id(tensor) in self._trained

    def through_output(self, op: Operation, d_output: Tensor, **channel_scale: Any) -> Tensor:
        """Append REQUANTIZE_BACKWARD; `d_output` itself where there is neither clamp nor scale."""
        inputs, attributes = {"d_output": d_output}, {}
        if op.output.dtype == "int8":
            inputs["output"] = op.output
            attributes["clamp"] = output_range(op)
        for name, value in channel_scale.items():
            (inputs if isinstance(value, Tensor) else attributes)[name] = value
        if len(inputs) == 1 and not attributes:
            return d_output
        d_acc = Tensor(self._unique(f"{d_output.name}_acc"), d_output.shape, "bfp16", Purpose.GRADIENT)
        self.emit("REQUANTIZE_BACKWARD", op, inputs, {"d_acc": d_acc}, attributes)
        return d_acc

    def _unique(self, name: str) -> str:
        candidate, number = name, 2
        while candidate in self._names:
            candidate, number = f"{name}_{number}", number + 1
        self._names.add(candidate)
        return candidate


def _keep_masks(graph: Graph) -> Graph:
    """Where the backward pass needs of an output only whether it was clamped, keep a bit mask of it."""
    backward = {id(op) for op in graph.operations if op.kind == "REQUANTIZE_BACKWARD" and "output" in op.inputs}
    loss = next(i for i, op in enumerate(graph.operations) if isinstance(op.op, LossOp))
    masks: dict[int, Operation] = {}
    for op in graph.operations:
        if id(op) not in backward:
            continue
        output = op.inputs["output"]
        readers = [r for r in graph.operations[loss:] if output in r.inputs.values()]
        if readers != [op]:
            continue
        mask = Tensor(f"{output.name}_mask", output.shape, "bits", Purpose.ACTIVATION)
        attributes = {"clamp": op.attributes["clamp"]}
        masks[id(output)] = Operation(
            OPS["CLAMP_MASK"], mask.name, {"output": output}, {"mask": mask}, attributes, op.layer
        )
        op.inputs = {"mask" if name == "output" else name: t for name, t in op.inputs.items()} | {"mask": mask}
    operations: list[Operation] = []
    for op in graph.operations:
        operations.append(op)
        operations += [masks[id(t)] for t in op.outputs.values() if id(t) in masks]
    return Graph(graph.name, graph.inputs, graph.outputs, operations)
