"""CONV_2D_BACKWARD_FILTER and BIAS_BACKWARD: the gradients of weights that dense layers and adapters share."""

from __future__ import annotations

import numpy as np

from tinypeft.arithmetic import INT32_MAX
from tinypeft.ir import Operation
from tinypeft.ops.base import CArray, RowFunction, Value, register
from tinypeft.ops.mantissas import mantissa_limit
from tinypeft.ops.parameter_gradient import ParameterGradient
from tinypeft.ops.weighted import input_range
from tinypeft.ops.window import Window


@register
class Conv2DBackwardFilter(ParameterGradient):
    """The gradient of a filter (Cout,KH,KW,Cin): d_output (OH,OW,Cout) against source - zero point, (H,W,Cin).

    The attribute `first_channel`, int16 (Cout,), where there is one: the first of the channels that each filter reads,
    as many as the gradient has.
    """

    name = "CONV_2D_BACKWARD_FILTER"
    operands = ("d_output", "source")
    source = "tp_filter_gradient.c"

    def reach(self, op: Operation) -> int:
        window: Window = op.attributes["window"]
        return window.output_h * window.output_w * input_range(op.inputs["source"])

    def total(self, op: Operation, values: dict[str, Value]) -> np.ndarray:
        window: Window = op.attributes["window"]
        x = values["source"].astype(np.float64) - op.inputs["source"].zero_point
        patches = window.patches(x).reshape(window.output_h * window.output_w, -1)
        d_output = values["d_output"].mantissa.reshape(-1, window.output_c).astype(np.float64)
        total = (d_output.T @ patches).astype(np.int64)  # exact: below 2**53
        first_channel = op.attributes.get("first_channel")
        if first_channel is None:
            return total
        read = first_channel[:, None] + np.arange(op.output.shape[-1])
        return np.take_along_axis(total.reshape(window.output_c, -1, window.input_c), read[:, None, :], 2)

    def row_function(self, op: Operation) -> RowFunction:
        window: Window = op.attributes["window"]
        x, first_channel = op.inputs["source"], op.attributes.get("first_channel")
        fields = {
            "window": window.fields(),
            "input_offset": -x.zero_point,
            "filter_c": window.input_c if first_channel is None else op.output.shape[-1],
            "first_channel": None if first_channel is None else CArray("int16_t", first_channel, "first_channel"),
        }
        wide = (
            window.output_h * window.output_w * (128 + abs(x.zero_point)) * mantissa_limit(op.inputs["d_output"])
            > INT32_MAX
        )
        if window.output_h == window.output_w == window.kernel_h == window.kernel_w == 1 and first_channel is None:
            return RowFunction("tp_dense_gradient_s32", "tp_filter_gradient_params", fields)
        name = "tp_filter_gradient_wide_s32" if wide else "tp_filter_gradient_s32"
        return RowFunction(name, "tp_filter_gradient_params", fields)

    def macs(self, op: Operation) -> int:
        window: Window = op.attributes["window"]
        return window.output_h * window.output_w * op.output.size


@register
class BiasBackward(ParameterGradient):
    """The gradient of a bias (C,): d_output (...,C) summed over positions."""

    name = "BIAS_BACKWARD"
    operands = ("d_output",)
    source = "tp_filter_gradient.c"

    def reach(self, op: Operation) -> int:
        return op.inputs["d_output"].size // op.inputs["d_output"].shape[-1]

    def total(self, op: Operation, values: dict[str, Value]) -> np.ndarray:
        mantissa = values["d_output"].mantissa.astype(np.int64)
        return mantissa.reshape(-1, mantissa.shape[-1]).sum(0)

    def row_function(self, op: Operation) -> RowFunction:
        fields = {"positions": self.reach(op), "channels": op.inputs["d_output"].shape[-1]}
        return RowFunction("tp_bias_gradient_s32", "tp_position_sum_params", fields)
