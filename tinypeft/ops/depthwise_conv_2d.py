"""DEPTHWISE_CONV_2D and the gradient with respect to its input."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from tinypeft import arithmetic
from tinypeft.errors import ModelError
from tinypeft.ir import DTYPES, Operation, Tensor
from tinypeft.ops.activation import activation_from_tflite
from tinypeft.ops.base import BlockFloat, Bounds, Builder, KernelCall, Op, Value, register
from tinypeft.ops.channels import depthwise_bounds, is_frozen
from tinypeft.ops.conv_2d import clamp_output, conv_fields, twice_rounded
from tinypeft.ops.mantissas import narrowed
from tinypeft.ops.overlap import window_distance
from tinypeft.ops.weighted import (
    bias_or_zeros,
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


def by_planes(window: Window) -> bool:
    """Whether the portable kernel computes channel by channel, so that the output may begin where the input does.

    That takes a plane of scratch: only where it is no larger than the distance at which rows could be overwritten. An
    output's window includes its row, so that kernels that hold the rows of a window can do the same.
    """
    includes_row = 0 <= window.pad_top <= (window.kernel_h - 1) * window.dilation_h
    return _keeps_shape(window) and includes_row and _plane_bytes(window) <= window_distance(window, False)


def _keeps_shape(window: Window) -> bool:
    """Whether each output stands for the input of its place."""
    return window.input_shape == window.output_shape and window.stride_h == window.stride_w == 1


def _plane_bytes(window: Window) -> int:
    """Of a channel with what the windows reach around it."""
    height = window.output_h + (window.kernel_h - 1) * window.dilation_h
    return height * (window.output_w + (window.kernel_w - 1) * window.dilation_w)


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

    def channel_sources(self, op: Operation) -> dict[str, np.ndarray] | None:
        if not is_frozen(op):
            return None
        window: Window = op.attributes["window"]
        channels: np.ndarray = np.arange(window.output_c)
        multiplier = window.output_c // window.input_c
        return {name: channels // multiplier if name == "input" else channels for name in op.inputs}

    def channel_bounds(self, op: Operation, bounds: dict[str, Bounds]) -> Bounds | None:
        return depthwise_bounds(op, bounds, functools.partial(twice_rounded, op))

    def vjp(self, op: Operation, d_output: Tensor, builder: Builder) -> dict[str, Tensor]:
        return frozen_vjp("DEPTHWISE_CONV_2D_BACKWARD_INPUT", op, d_output, builder)

    def call(self, op: Operation) -> KernelCall:
        function = "tp_depthwise_planes_s8" if by_planes(op.attributes["window"]) else "tp_depthwise_conv_s8"
        arguments = [op.inputs["input"], op.inputs["filter"], bias_or_zeros(op), *requantization_arguments(op)]
        return KernelCall(function, "tp_conv_params", conv_fields(op), [*arguments, op.output])

    def sources(self, op: Operation) -> tuple[str, ...]:
        return ("tp_depthwise_planes.c",) if by_planes(op.attributes["window"]) else (self.source,)

    def scratch_bytes(self, op: Operation) -> int:
        window: Window = op.attributes["window"]
        return _plane_bytes(window) if by_planes(window) else 0

    def in_place(self, op: Operation) -> dict[str, tuple[str, ...]]:
        return {"output": ("input",) if by_planes(op.attributes["window"]) else ()}

    def behind(self, op: Operation) -> dict[str, int]:
        window: Window = op.attributes["window"]
        return {} if by_planes(window) else {"input": window_distance(window, False)}

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
        # a row is kept before its place is written only where the windows do not begin inside the image
        return _keeps_shape(window) and window.pad_top >= 0

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
