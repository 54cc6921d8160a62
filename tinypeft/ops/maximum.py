"""MAXIMUM and MINIMUM of int8 tensors of one scale and zero point, with their gradient."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinypeft.ir import Operation, Tensor
from tinypeft.ops.base import Builder, Value, register
from tinypeft.ops.binary import Binary, BinaryBackward, other_than
from tinypeft.ops.broadcast import MAX_DIMENSIONS
from tinypeft.ops.constraints import same_quantization


class Extremum(Binary):
    """The operand that is the larger one times `sign`. Of equals, the gradient goes to the first, as in TensorFlow."""

    limits = (
        "Operands and output must have one scale and zero point between them; broadcasts that need more than "
        f"{MAX_DIMENSIONS} nested loops are refused."
    )
    source = "tp_maximum.c"
    params = "tp_extremum_params"
    sign = 1
    extreme_at_corners = True

    def attributes(self, options: Any) -> dict[str, Any]:
        return {}

    def check_scales(self, op: Operation) -> str | None:
        problems = (same_quantization(op.inputs[name], op.output) for name in self.operands)
        return next((problem for problem in problems if problem is not None), None)

    def parameters(self, op: Operation) -> dict[str, Any]:
        return {}

    def vjp(self, op: Operation, d_output: Tensor, builder: Builder) -> dict[str, Tensor]:
        gradients = {}
        for operand in self.wanted(op, builder):
            own, other = op.inputs[operand], op.inputs[other_than(operand)]
            gradients[operand] = builder.gradient(own)
            inputs = {"d_output": d_output, "self": own, "other": other}
            attributes = {
                "shapes": (own.shape, other.shape), "sign": self.sign, "margin": 0 if operand == "input1" else 1
            }  # fmt: skip
            builder.emit("SELECTED_BACKWARD", op, inputs, {"d_self": gradients[operand]}, attributes)
        return gradients


@register
class Maximum(Extremum):
    """output = max(input1, input2); either may be constant or broadcast."""

    name = "MAXIMUM"
    kernel = "tp_maximum_s8"

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        return {"output": np.maximum(values["input1"], values["input2"])}


@register
class Minimum(Extremum):
    """output = min(input1, input2); either may be constant or broadcast."""

    name = "MINIMUM"
    kernel = "tp_minimum_s8"
    sign = -1

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        return {"output": np.minimum(values["input1"], values["input2"])}


@register
class SelectedBackward(BinaryBackward):
    """d_self = d_output where sign * (self - other) >= margin, summed where `self` was broadcast."""

    name = "SELECTED_BACKWARD"
    kernel = "tp_selected_backward_s16"
    params = "tp_selected_backward_params"

    def factors(self, op: Operation, own: np.ndarray, other: np.ndarray) -> np.ndarray:
        return (op.attributes["sign"] * (own - other) >= op.attributes["margin"]).astype(np.int64)

    def parameters(self, op: Operation) -> dict[str, int]:
        return {"sign": op.attributes["sign"], "margin": op.attributes["margin"], "largest": 1, "exponent": 0}
