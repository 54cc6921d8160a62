"""DEPTHWISE_CONV_2D and the gradient with respect to its input."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinypeft import arithmetic
from tinypeft.errors import ModelError
from tinypeft.ir import DTYPES, Operation, Tensor
from tinypeft.ops.activation import activation_from_tflite
from tinypeft.ops.base import BlockFloat, Builder, KernelCall, Op, Value, register
from tinypeft.ops.conv_2d import clamp_output, conv_fields
from tinypeft.ops.mantissas import narrowed
from tinypeft.ops.overlap import window_distance
from tinypeft.ops.weighted import (
    check_requantization,
    frozen_vjp,
    requantization,
    requantization_arguments,
    tap_bytes,
    weight_operands,
)
from tinypeft.ops.window import Window, make_window


def _spread(window: Window, patches: np.ndarray) -> np.ndarray:
    """Input channels of patches repeated for the depth multiplier: (..., C) to (..., C*m)."""
    return np.repeat(patches, window.output_c // window.input_c, axis=-1)


@register
class DepthwiseConv2D(Op):
    """Depthwise convolution of input (1,H,W,C) with filter (1,KH,KW,C*m), requantisation and clamp.

    `multiplier` and `shift` are operands where factors of its channels are trained.
    """

    name = "DEPTHWISE_CONV_2D"
    operands = ("input", "filter")
    optional = ("bias", "multiplier", "shift")
    source = "tp_depthwise_conv.c"
    limits = "Weights must be constant, the batch 1."

    def from_tflite(
        self, options: Any, inputs: list[Tensor | None], outputs: list[Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        operands = weight_operands(inputs)
        filters, channels = operands["filter"].shape, operands["input"].shape[3]
        if filters[3] % channels:
            raise ModelError(f"{filters[3]} depthwise channels are no multiple of the input's {channels}")
        window = make_window(options, operands["input"].shape, filters[3], (filters[1], filters[2]))
        return operands, {"window": window, "activation": activation_from_tflite(options)}

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"output": op.attributes["window"].output_shape}

    def check(self, op: Operation) -> str | None:
        return check_requantization(op)

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        window: Window = op.attributes["window"]
        x = values["input"].astype(np.int64) - op.inputs["input"].zero_point
        acc = (_spread(window, window.patches(x)) * values["filter"][0].astype(np.int64)).sum((2, 3))
        if "bias" in op.inputs:
            acc = acc + values["bias"].astype(np.int64)
        return {"output": clamp_output(op, arithmetic.requantize_double(acc, *requantization(op, values)))}

    def vjp(self, op: Operation, d_output: Tensor, builder: Builder) -> dict[str, Tensor]:
        return frozen_vjp("DEPTHWISE_CONV_2D_BACKWARD_INPUT", op, d_output, builder)

    def call(self, op: Operation) -> KernelCall:
        arguments = [op.inputs["input"], op.inputs["filter"], op.inputs.get("bias"), *requantization_arguments(op)]
        return KernelCall("tp_depthwise_conv_s8", "tp_conv_params", conv_fields(op), [*arguments, op.output])

    def scratch_bytes(self, op: Operation) -> int:
        return tap_bytes(op.attributes["window"])

    def behind(self, op: Operation) -> dict[str, int]:
        return {"input": window_distance(op.attributes["window"], False)}

    def macs(self, op: Operation) -> int:
        window: Window = op.attributes["window"]
        return window.output_h * window.output_w * window.output_c * window.kernel_h * window.kernel_w


@register
class DepthwiseConv2DBackwardInput(Op):
    """The gradient of the input: d_acc (1,OH,OW,C*m) and filter (1,KH,KW,C*m) to (1,H,W,C)."""

    name = "DEPTHWISE_CONV_2D_BACKWARD_INPUT"
    operands = ("d_acc", "filter")
    results = ("d_input",)
    source = "tp_conv_backward.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"d_input": op.attributes["window"].input_shape}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        window: Window = op.attributes["window"]
        d_acc: BlockFloat = values["d_acc"]
        l1 = _channel_l1(op)
        narrow = arithmetic.accumulator_shift(d_acc.peak, l1)
        bound = int(arithmetic.round_half_up_shift(d_acc.peak, narrow)) * l1
        mantissa = arithmetic.round_half_up_shift(d_acc.mantissa, narrow)
        taps = mantissa.reshape(window.output_h, window.output_w, 1, 1, -1) * values["filter"][0].astype(np.int64)
        per_input = taps.reshape(*taps.shape[:-1], window.input_c, -1).sum(-1)
        return {"d_input": narrowed(op.output, window.scatter(per_input), d_acc.exponent + narrow, bound)}

    def in_place(self, op: Operation) -> dict[str, tuple[str, ...]]:
        return {"d_input": ("d_acc",) if self._in_place_allowed(op.attributes["window"]) else ()}

    @staticmethod
    def _in_place_allowed(window: Window) -> bool:
        same = (window.input_h, window.input_w, window.input_c) == (window.output_h, window.output_w, window.output_c)
        # a row is kept before its place is written only where the windows do not begin inside the image
        return same and window.stride_h == window.stride_w == 1 and window.pad_top >= 0

    def scratch_bytes(self, op: Operation) -> int:
        window: Window = op.attributes["window"]
        kept_rows = (window.kernel_h - 1) * window.dilation_h + 1 if self._in_place_allowed(window) else 0
        mantissa_bytes = np.dtype(DTYPES[op.output.dtype]).itemsize
        return tap_bytes(window) + mantissa_bytes * kept_rows * window.output_w * window.output_c

    def call(self, op: Operation) -> KernelCall:
        fields = {"window": op.attributes["window"].fields(), "l1": _channel_l1(op)}
        arguments = [op.inputs["d_acc"], op.inputs["filter"], op.output]
        return KernelCall("tp_depthwise_conv_backward_input_s16", "tp_conv_backward_params", fields, arguments)

    def macs(self, op: Operation) -> int:
        window: Window = op.attributes["window"]
        return window.output_h * window.output_w * window.output_c * window.kernel_h * window.kernel_w


def _channel_l1(op: Operation) -> int:
    """The largest sum of |filter| over one input channel."""
    data, window = op.inputs["filter"].data, op.attributes["window"]
    assert data is not None
    per_output = np.abs(data.astype(np.int64)).reshape(-1, window.output_c).sum(0)
    return int(per_output.reshape(window.input_c, -1).sum(1).max())
