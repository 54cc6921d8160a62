"""RESHAPE: the same elements under another shape, without a kernel; its gradient likewise."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinypeft.errors import ModelError
from tinypeft.ir import Operation, Tensor
from tinypeft.ops.base import BlockFloat, Bounds, Builder, KernelCall, Op, Value, register
from tinypeft.ops.constraints import same_quantization


@register
class Reshape(Op):
    """A view: the output is the input's buffer."""

    name = "RESHAPE"
    operands = ("input",)

    def from_tflite(
        self, options: Any, inputs: list[Tensor | None], outputs: list[Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        assert inputs[0] is not None
        if inputs[0].dtype != outputs[0].dtype or inputs[0].size != outputs[0].size:
            raise ModelError(f"a reshape of {inputs[0]} to {outputs[0]} is not supported")
        return {"input": inputs[0]}, {"shape": outputs[0].shape}

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"output": tuple(op.attributes["shape"])}

    def check(self, op: Operation) -> str | None:
        x, y = op.inputs["input"], op.output
        if x.size != y.size:
            return f"{x.name} of shape {x.shape} has {x.size} elements, {y.name} of shape {y.shape} has {y.size}"
        if x.data is not None:
            return f"{x.name} is constant: its reshape belongs into the file"
        return same_quantization(x, y) if x.dtype == "int8" else None

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        return {"output": values["input"].reshape(op.attributes["shape"])}

    def channel_sources(self, op: Operation) -> dict[str, np.ndarray] | None:
        x, y = op.inputs["input"].shape, op.output.shape
        return {"input": np.arange(y[-1]) % x[-1]} if x and y and y[-1] % x[-1] == 0 else None

    def channel_bounds(self, op: Operation, bounds: dict[str, Bounds]) -> Bounds | None:
        sources = self.channel_sources(op)
        if sources is None or "input" not in bounds:
            return None
        return Bounds(bounds["input"].low[sources["input"]], bounds["input"].high[sources["input"]])

    def vjp(self, op: Operation, d_output: Tensor, builder: Builder) -> dict[str, Tensor]:
        x = op.inputs["input"]
        if not builder.needs(x):
            return {}
        d_input = builder.gradient(x)
        builder.emit("RESHAPE_BACKWARD", op, {"d_output": d_output}, {"d_input": d_input}, {"shape": x.shape})
        return {"input": d_input}

    def view(self, op: Operation) -> tuple[str, int] | None:
        return "input", 0

    def call(self, op: Operation) -> KernelCall | None:
        return None


@register
class ReshapeBackward(Op):
    """A view of the gradient: mantissas, exponent and peak are those of d_output."""

    name = "RESHAPE_BACKWARD"
    operands = ("d_output",)
    results = ("d_input",)

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"d_input": tuple(op.attributes["shape"])}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        d_output: BlockFloat = values["d_output"]
        return {"d_input": BlockFloat(d_output.mantissa.reshape(op.attributes["shape"]), d_output.exponent)}

    def view(self, op: Operation) -> tuple[str, int] | None:
        return "d_output", 0

    def call(self, op: Operation) -> KernelCall | None:
        return None
