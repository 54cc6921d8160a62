"""Differentiate: forward graph with logits in, training graph out, pruned to what the trained parameters need."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from tinypeft.adapters import AdaptedGraph, Parameter
from tinypeft.errors import AdapterError, ModelError
from tinypeft.ir import Graph, Operation, Purpose, Tensor
from tinypeft.ops import OPS
from tinypeft.ops.activation import output_range
from tinypeft.optimizers import OPTIMIZERS

MAX_BATCH = 65535
#: of a setting that is a float32 and must not be 0, and of any
SMALLEST, LARGEST = 1e-30, 1e6


@dataclass(frozen=True)
class TrainingConfig:
    """How adapters are trained.

    optimizer      a name in OPTIMIZERS
    momentum       SGD's: velocity = momentum * velocity + gradient
    batch_size     samples whose gradients are averaged before an update
    nesterov       SGD steps by gradient + momentum * velocity
    weight_decay   SGD: weight_decay * master joins the gradient; Adam: master -= learning_rate * weight_decay * master
    beta_1, beta_2 how much of the moments Adam keeps
    epsilon        joins the root of Adam's second moment
    clip_norm      the largest norm of the gradient of all parameters together; 0 for any
    """

    optimizer: str = "sgd"
    momentum: float = 0.0
    batch_size: int = 1
    nesterov: bool = False
    weight_decay: float = 0.0
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7
    clip_norm: float = 0.0

    def __post_init__(self) -> None:
        """Raise AdapterError for a setting outside its limits, or one that the optimiser does not follow."""
        if self.optimizer not in OPTIMIZERS:
            raise AdapterError(f"there is no optimizer {self.optimizer}", f"one of: {', '.join(sorted(OPTIMIZERS))}")
        if not 1 <= self.batch_size <= MAX_BATCH:
            raise AdapterError(
                f"batch_size is {self.batch_size}, the limits are 1 and {MAX_BATCH}", "try --batch-size 4"
            )
        for name, hint in (("momentum", "0.9"), ("beta_1", "0.9"), ("beta_2", "0.999")):
            value = getattr(self, name)
            if not (value >= 0 and np.float32(value) < 1):
                option = name.replace("_", "-")
                raise AdapterError(f"{name} is {value:g}, it must be at least 0 and below 1", f"try --{option} {hint}")
        for name in ("weight_decay", "epsilon", "clip_norm"):
            value, least = getattr(self, name), SMALLEST if name == "epsilon" else 0.0
            if not least <= value <= LARGEST:
                raise AdapterError(f"{name} is {value:g}, the limits are {least:g} and {LARGEST:g}", _try_default(name))
        known = {name for optimizer in OPTIMIZERS.values() for name in optimizer.reads}
        for field in fields(self):
            if field.name not in known or field.name in OPTIMIZERS[self.optimizer].reads:
                continue
            if getattr(self, field.name) != field.default:
                readers = " or ".join(name for name, o in sorted(OPTIMIZERS.items()) if field.name in o.reads)
                raise AdapterError(
                    f"{field.name} is {getattr(self, field.name)}, but {self.optimizer} has none", f"{readers} has"
                )
        if self.nesterov and not self.momentum:
            raise AdapterError("nesterov is on, but momentum is 0", "try --momentum 0.9")
        if self.clip_norm and self.batch_size == 1:
            raise AdapterError(
                f"clip_norm is {self.clip_norm:g}, but with batch_size 1 each update follows its own gradient at once",
                "try --batch-size 2",
            )


def _try_default(name: str) -> str:
    default = {field.name: field.default for field in fields(TrainingConfig)}[name]
    return f"the default is {default}"


def differentiate(
    forward: Graph, logits: Tensor, adapted: AdaptedGraph, config: TrainingConfig
) -> tuple[Graph, Graph | None]:
    """The training graph and, for batches of more than one sample, the update graph.

    The training graph takes (input, label, learning_rate) and gives the loss; each parameter's update follows its
    gradient, and the adapter is quantised at the end. With a batch size above 1 it sums the gradients instead, and the
    update graph takes (learning_rate, count). Optimiser states join `adapted.initializers`.
    """
    builder = _Builder(forward, adapted)
    label = Tensor("label", (), "int32", Purpose.ARGUMENT)
    learning_rate = Tensor("learning_rate", (), "float32", Purpose.ARGUMENT)
    updates = _Updates(adapted, config, learning_rate)
    loss, d_logits = builder.loss(logits, label, adapted.observers)
    at = len(builder.operations)
    builder.backward(forward, logits, d_logits, updates)
    if not updates.batched:
        builder.operations[at:at] = updates.first()
    operations = [*builder.operations, *([] if updates.batched else adapted.quantizers)]
    arguments = [label] if updates.batched else [label, learning_rate]
    training = Graph("training", [*forward.inputs, *arguments], [loss], operations)
    training = _keep_masks(_prune(training))
    update = None
    if updates.batched:
        inputs = [learning_rate, updates.count]
        operations = [*updates.first(), *updates.operations, *adapted.quantizers]
        update = Graph("update", inputs, [], operations)
    return training, update


class _Updates:
    """What follows a parameter's gradient: its update, or its sum until the batch is complete."""

    def __init__(self, adapted: AdaptedGraph, config: TrainingConfig, learning_rate: Tensor):
        self.optimizer = OPTIMIZERS[config.optimizer]
        self.settings: dict[str, Any] = asdict(config)
        self.shared = self.optimizer.shared(self.settings)
        self.adapted, self.learning_rate = adapted, learning_rate
        self.batched = config.batch_size > 1
        self.count = Tensor("count", (), "int32", Purpose.ARGUMENT)
        self.clip_norm, self.sums = config.clip_norm, list[Tensor]()
        self.factor = Tensor("clip_factor", (1,), "float32", Purpose.GRADIENT)
        self.operations: list[Operation] = []
        for name, state in self.shared.states.items():
            self._start(state, "INITIALIZE_CONSTANT", {"value": self.shared.starts[name]})

    def first(self) -> list[Operation]:
        """What runs once before the updates of a step."""
        operations = list(self.shared.operations)
        if self.clip_norm:
            inputs = {"count": self.count, **{f"sum{i}": total for i, total in enumerate(self.sums)}}
            attributes = {"clip_norm": self.clip_norm}
            operations.append(Operation(OPS["CLIP_FACTOR"], "clip", inputs, {"factor": self.factor}, attributes))
        return operations

    def follow(self, parameter: Parameter, gradient: Tensor) -> Operation:
        """The operation right behind `gradient`."""
        master = parameter.master
        if not self.batched:
            return self._update(master, gradient)
        total = Tensor(f"{master.name}_sum", master.shape, "float32", Purpose.OPTIMIZER_STATE)
        self._start(total, "INITIALIZE_ZERO")
        mean = Tensor(f"{master.name}_mean", master.shape, "float32", Purpose.GRADIENT)
        self.sums.append(total)
        inputs, outputs = {"count": self.count, "sum": total}, {"mean": mean, "sum": total}
        if self.clip_norm:
            inputs["factor"] = self.factor
        self.operations.append(Operation(OPS["TAKE_MEAN"], f"{master.name}_take_mean", inputs, outputs))
        self.operations.append(self._update(master, mean))
        operands = {"gradient": gradient, "sum": total}
        return Operation(OPS["ACCUMULATE_GRADIENT"], f"{master.name}_accumulate", operands, {"sum": total})

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

    def loss(self, logits: Tensor, label: Tensor, observers: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Append the loss; returns it and the logits' gradient."""
        loss = Tensor("loss", (1,), "float32", Purpose.ACTIVATION)
        d_logits = self.gradient(logits)
        inputs = {"logits": logits, "label": label, **observers}
        outputs = {"loss": loss, "d_logits": d_logits, **observers}
        self.operations.append(Operation(OPS["SOFTMAX_CROSS_ENTROPY"], self._unique("cross_entropy"), inputs, outputs))
        return loss, d_logits

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


def _prune(graph: Graph) -> Graph:
    """Drop operations whose results nothing reads."""
    wanted = {id(t) for t in graph.outputs}
    kept: list[Operation] = []
    for op in reversed(graph.operations):
        if any(id(t) in wanted or t.persistent for t in op.outputs.values()):
            kept.append(op)
            wanted.update(id(t) for t in op.inputs.values())
    return Graph(graph.name, graph.inputs, graph.outputs, kept[::-1])


def _keep_masks(graph: Graph) -> Graph:
    """Where the backward pass needs of an output only whether it was clamped, keep a bit mask of it."""
    backward = {id(op) for op in graph.operations if op.kind == "REQUANTIZE_BACKWARD" and "output" in op.inputs}
    loss = next(i for i, op in enumerate(graph.operations) if op.kind == "SOFTMAX_CROSS_ENTROPY")
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
