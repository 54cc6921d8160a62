"""REDUCE_MAX and REDUCE_MIN over any axes, with their gradient."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinypeft.ir import Operation, Tensor
from tinypeft.ops.base import BlockFloat, Builder, KernelCall, Op, Value, register
from tinypeft.ops.constraints import same_quantization
from tinypeft.ops.mantissas import stored
from tinypeft.ops.reduction import loops_of, reduced_shape, reduction_from_tflite


class ReduceExtreme(Op):
    """What both share; the attributes are `axes` and `keep_dims`."""

    operands = ("input",)
    source = "tp_reduce.c"
    limits = "The axes must be constant, input and output of the same scale."
    sign = 1

    def from_tflite(
        self, options: Any, inputs: list[Tensor | None], outputs: list[Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return reduction_from_tflite(options, inputs, outputs)

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"output": reduced_shape(op)}

    def check(self, op: Operation) -> str | None:
        return same_quantization(op.inputs["input"], op.output)

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        largest = (values["input"].astype(np.int16) * self.sign).max(axis=op.attributes["axes"]) * self.sign
        return {"output": largest.astype(np.int8).reshape(op.output.shape)}

    def vjp(self, op: Operation, d_output: Tensor, builder: Builder) -> dict[str, Tensor]:
        x = op.inputs["input"]
        if not builder.needs(x):
            return {}
        d_input = builder.gradient(x)
        attributes = {"axes": op.attributes["axes"], "shape": x.shape, "sign": self.sign}
        operands = {"d_output": d_output, "input": x}
        builder.emit("REDUCE_EXTREME_BACKWARD", op, operands, {"d_input": d_input}, attributes)
        return {"input": d_input}

    def call(self, op: Operation) -> KernelCall:
        fields: dict[str, Any] = {**loops_of(op).fields(), "sign": self.sign}
        arguments: list[Any] = [op.inputs["input"], op.outputs["output"]]
        return KernelCall("tp_reduce_extreme_s8", "tp_reduce_extreme_params", fields, arguments)


@register
class ReduceMax(ReduceExtreme):
    """output = the largest element over the attribute `axes`."""

    name = "REDUCE_MAX"


@register
class ReduceMin(ReduceExtreme):
    """output = the smallest element over the attribute `axes`."""

    name = "REDUCE_MIN"
    sign = -1


@register
class ReduceExtremeBackward(Op):
    """Each d_output goes to the first of the extreme elements in row-major order, as through a MAX_POOL_2D.

    The attribute `sign` is 1 for the largest, -1 for the smallest; `shape` is the input's.
    """

    name = "REDUCE_EXTREME_BACKWARD"
    operands = ("d_output", "input")
    results = ("d_input",)
    source = "tp_reduce.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"d_input": tuple(op.attributes["shape"])}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        axes, shape = op.attributes["axes"], tuple(op.attributes["shape"])
        d_output: BlockFloat = values["d_output"]
        behind = [i for i in range(len(shape)) if i not in axes] + list(axes)
        moved = (values["input"].astype(np.int16) * op.attributes["sign"]).transpose(behind)
        results = moved.reshape(d_output.mantissa.size, -1)
        first = np.arange(results.shape[1]) == results.argmax(axis=1)[:, None]
        spread = np.where(first, d_output.mantissa.reshape(-1, 1), 0)
        mantissa = spread.reshape(moved.shape).transpose(np.argsort(behind))
        return {"d_input": stored(op.output, mantissa, d_output.exponent)}

    def call(self, op: Operation) -> KernelCall:
        fields: dict[str, Any] = {**loops_of(op).fields(), "sign": op.attributes["sign"]}
        arguments: list[Any] = [op.inputs["d_output"], op.inputs["input"], op.outputs["d_input"]]
        return KernelCall("tp_reduce_extreme_backward_s16", "tp_reduce_extreme_params", fields, arguments)
