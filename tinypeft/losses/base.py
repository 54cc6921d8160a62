"""What a loss declares: the targets it takes, what of a model's end it contains, and the operation that computes it."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinypeft.arithmetic import saturate_s32
from tinypeft.errors import AdapterError, ModelError
from tinypeft.ir import Graph, Operation, Purpose, Tensor
from tinypeft.ops import OPS
from tinypeft.ops.loss import ONE_Q16

#: name -> the loss's only instance
LOSSES: dict[str, Loss] = {}

#: A class's number, a vector of one value an output, or the model's own input
LABEL, VECTOR, INPUT = TARGETS = ("label", "vector", "input")


def register(cls: type[Loss]) -> type[Loss]:
    """Class decorator: put the loss into the registry; a second of the same name is a KeyError."""
    if cls.name in LOSSES:
        raise KeyError(f"loss {cls.name} is registered twice")
    LOSSES[cls.name] = cls()
    return cls


class Loss:
    """A loss; stateless, one instance lives in LOSSES.

    summary        what it is, for users
    targets        of TARGETS those that it can be computed against, its default first
    operator       the operator that computes it, a `LossOp`
    passed_over    operators at the end of a model that it contains: it reads what lies in front of them
    classifies     whether the largest output, or for vectors the sign of each, is a decision, so that there is accuracy
    bounds         the smallest and largest value of a target vector
    """

    name: str = ""
    summary: str = ""
    targets: tuple[str, ...] = ()
    operator: str = ""
    passed_over: tuple[str, ...] = ()
    classifies: bool = True
    bounds: tuple[float, float] = (-32768.0, 32767.0)

    def attributes(self, logits: Tensor, settings: dict[str, Any]) -> dict[str, Any]:
        """The operation's attributes; AdapterError for a setting that does not suit the logits."""
        return {}

    def target(self, graph: Graph, logits: Tensor, target: str) -> Tensor:
        """The operand for `target`, one of `targets`: an argument of the training graph, or what it computes."""
        if target == LABEL:
            return Tensor("label", (), "int32", Purpose.ARGUMENT)
        if target == VECTOR:
            return Tensor("target", (logits.size,), "int32", Purpose.ARGUMENT)
        return _int8_input(graph, logits, self.name)

    def operation(
        self,
        name: str,
        logits: Tensor,
        target: Tensor,
        d_logits: Tensor,
        observers: dict[str, Tensor],
        settings: dict[str, Any],
    ) -> Operation:
        """The operation that gives the loss, an int32 in Q16.16, and `d_logits`; `observers` are updated in place."""
        loss = Tensor("loss", (1,), "int32", Purpose.ACTIVATION)
        inputs = {"logits": logits, "target": target, **observers}
        outputs = {"loss": loss, "d_logits": d_logits, **observers}
        operation = Operation(OPS[self.operator], name, inputs, outputs, self.attributes(logits, settings))
        problem = operation.op.check(operation)
        if problem is not None:
            raise ModelError(f"the model cannot be trained with {self.name}: {problem}", "try another --loss")
        return operation


def target_argument(target: Tensor | None, y: Any) -> dict[str, np.ndarray]:
    """The argument of a training graph for a sample's `y`: its label, or real values (outputs,), by `target`'s name."""
    if target is None:
        return {}
    return {target.name: q16(y).reshape(target.shape) if target.shape else np.array(y, np.int32)}


def target_on_device(target: Tensor | None, y: Any) -> int | bytes | None:
    """The same as `Device.train_step` takes it."""
    if target is None:
        return None
    return q16(y).astype("<i4").tobytes() if target.shape else int(y)


def q16(values: np.ndarray) -> np.ndarray:
    """Real values as int32 in Q16.16, rounded half up, saturated."""
    return saturate_s32(np.floor(np.asarray(values, np.float64) * ONE_Q16 + 0.5))


def _int8_input(graph: Graph, logits: Tensor, loss: str) -> Tensor:
    """The model's input as int8; AdapterError where it is not what the output stands for."""
    tensor = graph.inputs[0]
    if tensor.dtype != "int8":
        quantized = [op.output for op in graph.consumers(tensor) if op.kind == "QUANTIZE"]
        if len(quantized) != 1:
            raise AdapterError(
                f"the input {tensor.name} is {tensor.dtype} and is quantised in {len(quantized)} places, as a target "
                "it must be int8",
                "convert the model with an int8 input",
            )
        tensor = quantized[0]
    if tensor.size != logits.size:
        raise AdapterError(
            f"{loss} against the input needs as many outputs as inputs: the input has {tensor.size} elements, "
            f"the output {logits.size}",
            "try --target vector",
        )
    return tensor
