"""FULLY_CONNECTED, and DENSE_LOGITS: the same accumulators as fixed point, for the loss and a retrained classifier."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinypeft import arithmetic
from tinypeft.errors import ModelError
from tinypeft.ir import Operation, Tensor
from tinypeft.ops.activation import activation_from_tflite, output_range
from tinypeft.ops.base import Bounds, Builder, CArray, KernelCall, Op, Value, register
from tinypeft.ops.channels import mixed_bounds
from tinypeft.ops.conv_2d import clamp_output, clamped
from tinypeft.ops.overlap import rows_distance
from tinypeft.ops.weighted import (
    LORA_OPERANDS,
    LORA_SOURCE,
    accumulate,
    check_requantization,
    column_bytes,
    filter_scales,
    folded_bias,
    folds_offset,
    input_scale,
    lora_arguments,
    lora_rank,
    multipliers,
    pointwise,
    requantization,
    requantization_arguments,
    weight_operands,
    weighted_vjp,
)
from tinypeft.ops.window import Window


def dense_window(op: Operation) -> Window:
    """The layer as a 1x1 convolution over its rows."""
    output_c, input_c = op.inputs["filter"].shape
    return pointwise(op.inputs["input"].size // input_c, input_c, output_c)


def _fields(op: Operation) -> dict[str, Any]:
    window = dense_window(op)
    return {
        "positions": window.input_h,
        "input_c": window.input_c,
        "output_c": window.output_c,
        "input_offset": -op.inputs["input"].zero_point,
        "rank": lora_rank(op),
    }


def _folded(op: Operation) -> bool:
    return folds_offset(op.inputs["filter"])


def _bias(op: Operation) -> Tensor | CArray | None:
    return folded_bias(op) if _folded(op) else op.inputs.get("bias")


def _no_scratch(op: Operation) -> list[None]:
    return [] if _scratch_bytes(op) else [None]


def _scratch_bytes(op: Operation) -> int:
    return 0 if _folded(op) else column_bytes(dense_window(op))


def _macs(op: Operation) -> int:
    window = dense_window(op)
    return window.input_h * window.output_c * (window.input_c + lora_rank(op))


@register
class FullyConnected(Op):
    """Dense layer: input (...,Cin) and filter (Cout,Cin) to (...,Cout), a LoRA's addend, requantisation and clamp.

    `multiplier` and `shift` are operands where the layer is retrained or factors of its channels are trained.
    """

    name = "FULLY_CONNECTED"
    operands = ("input", "filter")
    optional = ("bias", "multiplier", "shift", *LORA_OPERANDS)
    source = "tp_fully_connected.c"

    def from_tflite(
        self, options: Any, inputs: list[Tensor | None], outputs: list[Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        operands = weight_operands(inputs)
        if options is not None and options.weightsFormat:
            raise ModelError(f"the weights format {options.weightsFormat} is not supported", "use the default format")
        attributes = {"activation": activation_from_tflite(options), "output_shape": outputs[0].shape}
        return operands, attributes

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"output": op.attributes["output_shape"]}

    def check(self, op: Operation) -> str | None:
        output_c, input_c = op.inputs["filter"].shape
        size = op.inputs["input"].size
        if size % input_c or op.output.size != size // input_c * output_c:
            return f"an input of {size} elements and a filter of {output_c}x{input_c} do not give {op.output.shape}"
        return check_requantization(op)

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        acc = accumulate(op, dense_window(op), values)
        return {"output": clamp_output(op, arithmetic.requantize_single(acc, *requantization(op, values)))}

    def channel_bounds(self, op: Operation, bounds: dict[str, Bounds]) -> Bounds | None:
        return mixed_bounds(op, bounds, lambda acc: clamped(op, arithmetic.requantize_single(acc, *multipliers(op))))

    def vjp(self, op: Operation, d_output: Tensor, builder: Builder) -> dict[str, Tensor]:
        return weighted_vjp(op, dense_window(op), d_output, builder)

    def call(self, op: Operation) -> KernelCall:
        low, high = output_range(op)
        fields = _fields(op) | {
            "output_offset": op.output.zero_point,
            "activation_min": low,
            "activation_max": high,
        }
        arguments = [op.inputs["input"], op.inputs["filter"], _bias(op), *requantization_arguments(op)]
        arguments += [*lora_arguments(op), op.output, *_no_scratch(op)]
        return KernelCall("tp_fully_connected_s8", "tp_fully_connected_params", fields, arguments)

    def scratch_bytes(self, op: Operation) -> int:
        return _scratch_bytes(op)

    def behind(self, op: Operation) -> dict[str, int]:
        window = dense_window(op)
        return {"input": rows_distance(window.input_h, window.input_c, window.output_c)}

    def sources(self, op: Operation) -> tuple[str, ...]:
        return self.source, LORA_SOURCE

    def macs(self, op: Operation) -> int:
        return _macs(op)


def _logit_exponent(op: Operation) -> int:
    assert op.output.scale is not None
    return arithmetic.float_exponent(op.output.scale[0])


@register
class DenseLogits(Op):
    """The accumulators of a final dense layer, acc * scale, as int32 (1,classes) whose step is a power of two.

    `scale` is an operand where the layer is retrained; else the constant input scale * filter scale. Rounded half up,
    saturated.
    """

    name = "DENSE_LOGITS"
    operands = ("input", "filter")
    optional = ("bias", "scale", *LORA_OPERANDS)
    results = ("logits",)
    source = "tp_fully_connected.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"logits": (1, op.inputs["filter"].shape[0])}

    def check(self, op: Operation) -> str | None:
        window = dense_window(op)
        return (
            None if window.input_h == 1 else f"the classifier gives {window.input_h} rows of logits, supported is one"
        )

    def _scale(self, op: Operation) -> np.ndarray:
        return input_scale(op) * filter_scales(op)

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        acc = accumulate(op, dense_window(op), values)
        scale = values["scale"] if "scale" in op.inputs else self._scale(op)
        multiplier, exponent = arithmetic.float_multiplier(scale)
        return {"logits": arithmetic.fixed_point(acc.astype(np.int32), multiplier, _logit_exponent(op) - exponent)}

    def vjp(self, op: Operation, d_output: Tensor, builder: Builder) -> dict[str, Tensor]:
        return weighted_vjp(op, dense_window(op), d_output, builder)

    def call(self, op: Operation) -> KernelCall:
        fields = _fields(op) | {"logit_exponent": _logit_exponent(op)}
        scale = op.inputs.get("scale") or CArray("float", self._scale(op), "scale")
        arguments: list[Any] = [op.inputs["input"], op.inputs["filter"], _bias(op), scale]
        arguments += [*lora_arguments(op), op.output, *_no_scratch(op)]
        return KernelCall("tp_dense_logits_s8", "tp_fully_connected_params", fields, arguments)

    def scratch_bytes(self, op: Operation) -> int:
        return _scratch_bytes(op)

    def sources(self, op: Operation) -> tuple[str, ...]:
        return self.source, LORA_SOURCE

    def macs(self, op: Operation) -> int:
        return _macs(op)
