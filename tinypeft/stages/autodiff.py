"""Differentiate: forward graph with logits in, training graph out, pruned to what the trained parameters need."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from tinypeft.adapters import AdaptedGraph
from tinypeft.errors import ModelError
from tinypeft.ir import Graph, Operation, Purpose, Tensor
from tinypeft.losses import LOSSES
from tinypeft.ops import OPS
from tinypeft.ops.activation import output_range
from tinypeft.ops.loss import LossOp
from tinypeft.training import TrainingConfig
from tinypeft.updates import Updates


def differentiate(
    forward: Graph, logits: Tensor, adapted: AdaptedGraph, config: TrainingConfig
) -> tuple[Graph, Graph | None]:
    """The training graph and, for batches of more than one sample, the update graph.

    The training graph takes (input, label or target vector if any, learning_rate) and gives the loss; each parameter's
    update follows its gradient, and the adapter is quantised at the end. With a batch size above 1 it sums the
    gradients instead, and the update graph takes (learning_rate, count). Optimiser states join `adapted.initializers`.
    """
    builder = _Builder(forward, adapted, f"bfp{config.grad_bits}")
    target = LOSSES[config.loss].target(forward, logits, config.target)
    learning_rate = Tensor("learning_rate", (), "float32", Purpose.ARGUMENT)
    updates = Updates(adapted, config, learning_rate)
    loss, d_logits = builder.loss(logits, target, adapted.observers, config)
    at = len(builder.operations)
    builder.backward(forward, logits, d_logits, updates)
    if not updates.batched:
        builder.operations[at:at] = updates.first()
    operations = [*builder.operations, *([] if updates.batched else updates.quantizers())]
    arguments = [t for t in (target,) if t.purpose is Purpose.ARGUMENT] + ([] if updates.batched else [learning_rate])
    training = Graph("training", [*forward.inputs, *arguments], [loss], operations)
    training = _masks_first(_keep_masks(training.pruned()))
    update = None
    if updates.batched:
        inputs = [learning_rate, updates.count]
        operations = [*updates.first(), *updates.operations, *adapted.quantizers]
        update = Graph("update", inputs, [], operations)
    return training, update


class _Builder:
    """Appends backward operations; the `Builder` that operators' vjp rules write to."""

    def __init__(self, forward: Graph, adapted: AdaptedGraph, gradient_dtype: str):
        self.operations = list(forward.operations)
        self._dtype = gradient_dtype
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

    def backward(self, forward: Graph, logits: Tensor, d_logits: Tensor, updates: Updates) -> None:
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

    def _receive(self, tensor: Tensor, gradient: Tensor, updates: Updates) -> None:
        parameter = self._parameters.get(id(tensor))
        if parameter is not None:
            position = next(i for i, op in enumerate(self.operations) if gradient in op.outputs.values())
            update = updates.consume(parameter, self.operations[position])
            self.operations[position : position + 1] = [] if update is None else [update]
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
        """A fresh tensor of mantissas."""
        return Tensor(self._unique(f"d_{of.name}"), of.shape, self._dtype, Purpose.GRADIENT)

    def parameter_gradient(self, of: Tensor) -> Tensor:
        """A fresh bfp32 tensor shaped like the master behind `of`."""
        master = self._parameters[id(of)].master
        return Tensor(self._unique(f"d_{of.name}"), master.shape, "bfp32", Purpose.GRADIENT)

    def needs(self, tensor: Tensor | None) -> bool:
        """Whether a trained parameter lies at or below `tensor`."""
        return tensor is not None and id(tensor) in self._trained

    def through_output(self, op: Operation, d_output: Tensor, clamp: bool = True, **channel_scale: Any) -> Tensor:
        """Append REQUANTIZE_BACKWARD; `d_output` itself where there is neither clamp nor scale."""
        inputs, attributes = {"d_output": d_output}, {}
        if op.output.dtype == "int8" and clamp:
            inputs["output"] = op.output
            attributes["clamp"] = output_range(op)
        for name, value in channel_scale.items():
            (inputs if isinstance(value, Tensor) else attributes)[name] = value
        if len(inputs) == 1 and not attributes:
            return d_output
        d_acc = Tensor(self._unique(f"{d_output.name}_acc"), d_output.shape, self._dtype, Purpose.GRADIENT)
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


def _masks_first(graph: Graph) -> Graph:
    """Masks that the backward pass makes move to the operands they are made of, which may then be overwritten."""
    moved = [op for op in graph.operations if op.output.dtype == "bits"]
    operations = [op for op in graph.operations if op not in moved]
    for mask in moved:
        operands = [t for t in mask.inputs.values() if not t.persistent]
        made = [i for i, op in enumerate(operations) if any(t in operands for t in op.outputs.values())]
        operations.insert(max(made, default=-1) + 1, mask)
    return Graph(graph.name, graph.inputs, graph.outputs, operations)
