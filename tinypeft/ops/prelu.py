"""PRELU: a ReLU whose slope below zero is a constant an element, mostly one a channel; with its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinypeft.arithmetic import channel_fold, quantize_multiplier, requantize_double, round_half_up_shift
from tinypeft.errors import ModelError
from tinypeft.ir import Operation, Tensor
from tinypeft.ops.activation import saturate
from tinypeft.ops.base import Bounds, Builder, Value, register
from tinypeft.ops.binary import Binary, BinaryBackward
from tinypeft.ops.broadcast import MAX_DIMENSIONS, broadcast_shape
from tinypeft.ops.channels import corner_bounds
from tinypeft.ops.constraints import per_tensor
from tinypeft.ops.lookup import MAX_SHIFT
from tinypeft.ops.mul import MAX_SHIFT as MAX_PRODUCT_SHIFT


@register
class Prelu(Binary):
    """output = input1 where it is positive, else input1 * input2, the constant slopes, broadcast to input1."""

    name = "PRELU"
    limits = f"The slopes must be constant; broadcasts that need more than {MAX_DIMENSIONS} nested loops are refused."
    source = "tp_prelu.c"
    kernel = "tp_prelu_s8"
    params = "tp_prelu_params"

    def from_tflite(
        self, options: Any, inputs: list[Tensor | None], outputs: list[Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        operands, attributes = super().from_tflite(options, inputs, outputs)
        x, slopes = operands["input1"], operands["input2"]
        if slopes.data is None:
            raise ModelError("the slopes of a PReLU must be constant")
        if broadcast_shape(x.shape, slopes.shape) != x.shape:
            raise ModelError(f"the slopes of a PReLU have shape {slopes.shape}, which is no part of {x.shape}")
        return operands, attributes

    def attributes(self, options: Any) -> dict[str, Any]:
        return {}

    def check_scales(self, op: Operation) -> str | None:
        p = self.parameters(op)
        if p["positive_shift"] <= MAX_SHIFT and p["negative_shift"] <= MAX_PRODUCT_SHIFT:
            return None
        scale_in, scale = per_tensor(op.inputs["input1"])[0], per_tensor(op.output)[0]
        return f"{op.output.name} has scale {scale:g}, too small for an input of scale {scale_in:g}"

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        p = self.parameters(op)
        x, slope = (values[name].astype(np.int64) + p[f"{name}_offset"] for name in self.operands)
        positive = requantize_double(x, p["positive_multiplier"], p["positive_shift"])
        negative = requantize_double(x * slope, p["negative_multiplier"], p["negative_shift"])
        return {"output": saturate(np.where(x >= 0, positive, negative) + p["output_offset"])}

    def channel_bounds(self, op: Operation, bounds: dict[str, Bounds]) -> Bounds | None:
        zero_point = op.inputs["input1"].zero_point
        return corner_bounds(op, bounds, (zero_point - 1, zero_point))

    def vjp(self, op: Operation, d_output: Tensor, builder: Builder) -> dict[str, Tensor]:
        x, slopes = op.inputs["input1"], op.inputs["input2"]
        if not builder.needs(x):
            return {}
        d_clamped, d_x = builder.through_output(op, d_output), builder.gradient(x)
        inputs = {"d_output": d_clamped, "self": x, "other": slopes}
        attributes = {"shapes": (x.shape, slopes.shape), "zero_point": x.zero_point, "slope": per_tensor(slopes)}
        builder.emit("PRELU_BACKWARD", op, inputs, {"d_self": d_x}, attributes)
        return {"input1": d_x}

    def parameters(self, op: Operation) -> dict[str, Any]:
        (scale, zero), (slope_scale, slope_zero) = (per_tensor(op.inputs[name]) for name in self.operands)
        scale_out, zero_out = per_tensor(op.output)
        positive = float(np.float32(scale) / np.float32(scale_out))
        negative = float(np.float32(scale) * np.float32(slope_scale) / np.float32(scale_out))
        parameters = {"input1_offset": -zero, "input2_offset": -slope_zero, "output_offset": zero_out}
        for name, real in (("positive", positive), ("negative", negative)):
            parameters[f"{name}_multiplier"], parameters[f"{name}_shift"] = quantize_multiplier(real)
        return parameters


@register
class PreluBackward(BinaryBackward):
    """d_self = d_output where self is positive, else d_output * other, the slopes.

    The attributes are the `zero_point` of self and the (scale, zero point) of the slopes, `slope`.
    """

    name = "PRELU_BACKWARD"
    kernel = "tp_prelu_backward_s16"
    params = "tp_prelu_backward_params"

    def factors(self, op: Operation, own: np.ndarray, other: np.ndarray) -> np.ndarray:
        p = self.parameters(op)
        slopes = round_half_up_shift((other + p["slope_offset"]) * p["slope_multiplier"], p["slope_shift"])
        return np.where(own > p["zero_point"], p["one"], slopes)

    def parameters(self, op: Operation) -> dict[str, int]:
        scale, zero_point = op.attributes["slope"]
        reach = max(127 - zero_point, zero_point + 128)
        (one, _), exponent = channel_fold(np.array([1.0, scale * reach]))
        (multiplier,), multiplier_exponent = channel_fold(np.array([scale]))
        shift = exponent - multiplier_exponent
        return {
            "zero_point": op.attributes["zero_point"], "one": int(one),
            "slope_offset": -zero_point, "slope_multiplier": int(multiplier), "slope_shift": shift,
            "largest": max(int(one), int(round_half_up_shift(int(multiplier) * reach, shift))), "exponent": exponent,
        }  # fmt: skip
