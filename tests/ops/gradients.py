"""Runs an operator's `vjp` on values: a small reverse pass with `evaluate` for every operation it emits."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinypeft.ir import Operation, Purpose, Tensor
from tinypeft.ops import OPS
from tinypeft.ops.activation import output_range
from tinypeft.ops.base import BlockFloat, Op, Value


class ClampGradient(Op):
    """Stands for REQUANTIZE_BACKWARD: no gradient where the output is clamped."""

    name = "CLAMP_GRADIENT"
    operands = ("d_output", "output")
    results = ("d_acc",)

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        low, high = op.attributes["clamp"]
        passed = (values["output"] > low) & (values["output"] < high)
        d_output: BlockFloat = values["d_output"]
        return {"d_acc": BlockFloat(np.where(passed, d_output.mantissa, 0).astype(np.int16), d_output.exponent)}


class RecordingBuilder:
    """A Builder that keeps what is emitted, with a gradient wanted for every operand that is not constant."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.masked = False

    def emit(
        self,
        kind: str,
        forward: Operation,
        inputs: dict[str, Tensor],
        outputs: dict[str, Tensor],
        attributes: dict[str, Any] | None = None,
    ) -> Operation:
        name = f"{forward.name}/{kind}"
        op = Operation(OPS[kind], name, inputs, outputs, attributes or {}, forward.layer)
        for result, shape in op.op.shapes(op).items():
            assert outputs[result].shape == shape
        self.operations.append(op)
        return op

    def gradient(self, of: Tensor) -> Tensor:
        return Tensor(f"d_{of.name}{len(self.operations)}", of.shape, "bfp16", Purpose.GRADIENT)

    def parameter_gradient(self, of: Tensor) -> Tensor:
        return Tensor(f"d_{of.name}{len(self.operations)}", of.shape, "bfp32", Purpose.GRADIENT)

    def needs(self, tensor: Tensor | None) -> bool:
        return tensor is not None and tensor.data is None and tensor.dtype == "int8"

    def through_output(self, op: Operation, d_output: Tensor, clamp: bool = True, **channel_scale: Any) -> Tensor:
        self.masked = True
        d_acc = self.gradient(op.output)
        operands = {"d_output": d_output, "output": op.output}
        clamp = Operation(ClampGradient(), f"{op.name}/clamp", operands, {"d_acc": d_acc}, {"clamp": output_range(op)})
        self.operations.append(clamp)
        return d_acc


def backward(
    op: Operation, values: dict[str, Value], d_output: BlockFloat
) -> tuple[dict[str, BlockFloat], list[tuple[Operation, dict[str, Value]]], bool]:
    """(operand -> its gradient, the emitted operations with their operands' values, whether the clamp was regarded)."""
    builder = RecordingBuilder()
    d_tensor = builder.gradient(op.output)
    gradients = op.op.vjp(op, d_tensor, builder)
    known: dict[int, Value] = {id(op.inputs[name]): value for name, value in values.items()}
    known[id(op.output)] = op.op.evaluate(op, values)["output"]
    known[id(d_tensor)] = d_output
    steps = []
    for step in builder.operations:
        operands = {name: known[id(tensor)] for name, tensor in step.inputs.items()}
        steps.append((step, operands))
        known |= {id(step.outputs[name]): value for name, value in step.op.evaluate(step, operands).items()}
    return {name: known[id(tensor)] for name, tensor in gradients.items()}, steps, builder.masked
