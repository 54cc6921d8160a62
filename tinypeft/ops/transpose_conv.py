"""TRANSPOSE_CONV and the gradient with respect to its input."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinypeft import arithmetic
from tinypeft.errors import ModelError
from tinypeft.ir import Operation, Tensor
from tinypeft.ops.activation import activation_from_tflite
from tinypeft.ops.base import BlockFloat, Builder, KernelCall, Op, Value, register
from tinypeft.ops.constraints import constant
from tinypeft.ops.conv_2d import clamp_output, conv_fields
from tinypeft.ops.mantissas import narrowed
from tinypeft.ops.weighted import (
    check_requantization,
    frozen_vjp,
    requantization,
    requantization_arguments,
    weight_operands,
)
from tinypeft.ops.window import Window, make_window


@register
class TransposeConv(Op):
    """The adjoint of a convolution: input (1,H,W,Cin), filter (Cout,KH,KW,Cin) to (1,OH,OW,Cout), requantised, clamped.

    The attribute `window` is that of the convolution, from (OH,OW,Cout) to (H,W,Cin). `multiplier` and `shift` are
    operands where factors of its channels are trained.
    """

    name = "TRANSPOSE_CONV"
    operands = ("input", "filter")
    optional = ("bias", "multiplier", "shift")
    source = "tp_transpose_conv.c"
    limits = "Weights and output shape must be constant, the batch 1."

    def from_tflite(
        self, options: Any, inputs: list[Tensor | None], outputs: list[Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        shape = tuple(constant(inputs[0], "output shape of a transposed convolution"))
        operands = weight_operands([inputs[2], inputs[1], *inputs[3:4]])
        x, filters = operands["input"].shape, operands["filter"].shape
        if len(x) != 4 or x[0] != 1 or shape != outputs[0].shape or (shape[3], x[3]) != (filters[0], filters[3]):
            raise ModelError(
                f"filters {filters} over an input {x} do not give {outputs[0].shape}", "export the model with batch 1"
            )
        window = make_window(options, shape, x[3], (filters[1], filters[2]))
        if window.output_shape != x:
            raise ModelError(
                f"an output of {shape[1]}x{shape[2]} has windows for an input of {window.output_h}x{window.output_w}, "
                f"not {x[1]}x{x[2]}",
                "leave out output_padding",
            )
        return operands, {"window": window, "activation": activation_from_tflite(options)}

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"output": op.attributes["window"].input_shape}

    def check(self, op: Operation) -> str | None:
        return check_requantization(op)

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        window: Window = op.attributes["window"]
        x = values["input"][0].astype(np.float64) - op.inputs["input"].zero_point
        taps = np.tensordot(x, values["filter"].astype(np.float64), (2, 3))  # exact: every sum is below 2**53
        acc = window.scatter(taps.transpose(0, 1, 3, 4, 2)).astype(np.int64)
        if "bias" in op.inputs:
            acc = acc + values["bias"].astype(np.int64)
        return {"output": clamp_output(op, arithmetic.requantize_double(acc, *requantization(op, values)))}

    def vjp(self, op: Operation, d_output: Tensor, builder: Builder) -> dict[str, Tensor]:
        return frozen_vjp("TRANSPOSE_CONV_BACKWARD_INPUT", op, d_output, builder)

    def call(self, op: Operation) -> KernelCall:
        arguments = [op.inputs["input"], op.inputs["filter"], op.inputs.get("bias"), *requantization_arguments(op)]
        return KernelCall("tp_transpose_conv_s8", "tp_conv_params", conv_fields(op), [*arguments, op.output])

    def scratch_bytes(self, op: Operation) -> int:
        window: Window = op.attributes["window"]
        return 2 * window.kernel_h * window.kernel_w * window.output_c

    def macs(self, op: Operation) -> int:
        return op.inputs["input"].size // op.inputs["input"].shape[3] * op.inputs["filter"].size


@register
class TransposeConvBackwardInput(Op):
    """The gradient of the input: d_acc (1,OH,OW,Cout) and filter (Cout,KH,KW,Cin) to (1,H,W,Cin), a convolution."""

    name = "TRANSPOSE_CONV_BACKWARD_INPUT"
    operands = ("d_acc", "filter")
    results = ("d_input",)
    source = "tp_conv_backward.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"d_input": op.attributes["window"].output_shape}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        window: Window = op.attributes["window"]
        d_acc: BlockFloat = values["d_acc"]
        l1 = _filter_l1(op)
        narrow = arithmetic.accumulator_shift(d_acc.peak, l1)
        bound = int(arithmetic.round_half_up_shift(d_acc.peak, narrow)) * l1
        mantissa = arithmetic.round_half_up_shift(d_acc.mantissa, narrow).astype(np.float64)
        acc = np.tensordot(window.patches(mantissa), values["filter"].astype(np.float64), ((2, 3, 4), (1, 2, 0)))
        return {"d_input": narrowed(op.output, acc.astype(np.int64), d_acc.exponent + narrow, bound)}

    def scratch_bytes(self, op: Operation) -> int:
        window: Window = op.attributes["window"]
        return 2 * window.kernel_h * window.kernel_w * window.input_c

    def call(self, op: Operation) -> KernelCall:
        fields = {"window": op.attributes["window"].fields(), "l1": _filter_l1(op)}
        arguments = [op.inputs["d_acc"], op.inputs["filter"], op.output]
        return KernelCall("tp_transpose_conv_backward_input_s16", "tp_conv_backward_params", fields, arguments)

    def macs(self, op: Operation) -> int:
        window: Window = op.attributes["window"]
        return window.output_h * window.output_w * op.inputs["filter"].size


def _filter_l1(op: Operation) -> int:
    """The largest sum of |filter| over one input channel."""
    data = op.inputs["filter"].data
    assert data is not None
    return int(np.abs(data.astype(np.int64)).reshape(-1, data.shape[-1]).sum(0).max())
