"""Elementwise operators of two int8 tensors, broadcast to each other, and the gradient of one of their operands.

The operators are in `add.py`, `mul.py`, `maximum.py` and `prelu.py`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinypeft.arithmetic import (
    channel_fold,
    narrow_shift,
    quantize_multiplier,
    requantize_double,
    round_half_up_shift,
)
from tinypeft.errors import ModelError
from tinypeft.ir import Operation, Tensor
from tinypeft.ops.activation import activation_from_tflite, check_activation
from tinypeft.ops.base import BlockFloat, Bounds, Builder, KernelCall, Op, Value, register
from tinypeft.ops.broadcast import MAX_DIMENSIONS, broadcast_shape, make_broadcast, sum_to
from tinypeft.ops.channels import corner_bounds
from tinypeft.ops.constraints import per_tensor, require_int8
from tinypeft.ops.mantissas import narrowed


class Binary(Op):
    """What the operators share: operands `input1` and `input2`, of which either may be constant or broadcast.

    `extreme_at_corners`: given one operand, the output only grows or only falls where the other grows.
    """

    operands = ("input1", "input2")
    limits = f"Broadcasts that need more than {MAX_DIMENSIONS} nested loops are refused."
    kernel = ""
    params = ""
    extreme_at_corners = False

    def from_tflite(
        self, options: Any, inputs: list[Tensor | None], outputs: list[Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        require_int8(*inputs, *outputs)
        input1, input2 = inputs
        assert input1 is not None and input2 is not None
        if broadcast_shape(input1.shape, input2.shape) is None:
            raise ModelError(f"the shapes {input1.shape} and {input2.shape} cannot be broadcast to each other")
        if make_broadcast(input1.shape, input2.shape) is None:
            raise ModelError(
                f"a broadcast of {input1.shape} and {input2.shape} is not supported, it needs more than "
                f"{MAX_DIMENSIONS} nested loops",
                "reshape both so that fewer dimensions alternate",
            )
        return {"input1": input1, "input2": input2}, self.attributes(options)

    def attributes(self, options: Any) -> dict[str, Any]:
        """The attributes that the TFLite options give."""
        return {"activation": activation_from_tflite(options)}

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        shape = broadcast_shape(op.inputs["input1"].shape, op.inputs["input2"].shape)
        assert shape is not None
        return {"output": shape}

    def check(self, op: Operation) -> str | None:
        output, shape = op.output, self.shapes(op)["output"]
        if output.shape != shape:
            return f"{output.name} has shape {output.shape}, the operands give {shape}"
        return self.check_scales(op) or check_activation(op)

    def check_scales(self, op: Operation) -> str | None:
        """None, or a sentence about scales and zero points that LiteRT refuses or that leave int32."""
        raise NotImplementedError

    def parameters(self, op: Operation) -> dict[str, Any]:
        """The fields of the kernel's struct but for the broadcast."""
        raise NotImplementedError

    def in_place(self, op: Operation) -> dict[str, tuple[str, ...]]:
        size = op.output.size
        return {"output": tuple(n for n in self.operands if op.inputs[n].in_arena and op.inputs[n].size == size)}

    def call(self, op: Operation) -> KernelCall:
        input1, input2 = op.inputs["input1"], op.inputs["input2"]
        broadcast = make_broadcast(input1.shape, input2.shape)
        assert broadcast is not None
        fields = {"broadcast": broadcast.fields(), **self.parameters(op)}
        return KernelCall(self.kernel, self.params, fields, [input1, input2, op.output])

    def channel_sources(self, op: Operation) -> dict[str, np.ndarray] | None:
        if not op.output.shape:
            return None
        own = np.arange(op.output.shape[-1])  # an operand with one channel gives it to all
        return {name: own % x.shape[-1] for name, x in op.inputs.items() if x.shape}

    def channel_bounds(self, op: Operation, bounds: dict[str, Bounds]) -> Bounds | None:
        return corner_bounds(op, bounds) if self.extreme_at_corners else None

    def wanted(self, op: Operation, builder: Builder) -> list[str]:
        """The operands that need a gradient."""
        return [name for name in self.operands if builder.needs(op.inputs[name])]


def aligned_parameters(op: Operation, left_shift: int, power: int) -> dict[str, int]:
    """Fields that bring both operands to twice the larger scale, shifted to the left, and a product of `power` back."""
    (scale1, zero1), (scale2, zero2) = (per_tensor(op.inputs[name]) for name in Binary.operands)
    scale, zero = per_tensor(op.output)
    twice = 2 * max(scale1, scale2)
    parameters = {"left_shift": left_shift}
    for name, offset, real in (
        ("input1", -zero1, scale1 / twice),
        ("input2", -zero2, scale2 / twice),
        ("output", zero, math.prod([twice] * power) / ((1 << power * left_shift) * scale)),
    ):
        multiplier, shift = quantize_multiplier(real)
        parameters |= {f"{name}_offset": offset, f"{name}_multiplier": multiplier, f"{name}_shift": shift}
    return parameters


def aligned_terms(parameters: dict[str, Any], values: dict[str, Value]) -> list[np.ndarray]:
    """Both operands as `aligned_parameters` brings them to one scale, int64."""
    return [
        requantize_double(
            (values[name].astype(np.int64) + parameters[f"{name}_offset"]) << parameters["left_shift"],
            parameters[f"{name}_multiplier"],
            parameters[f"{name}_shift"],
        )
        for name in Binary.operands
    ]


def other_than(operand: str) -> str:
    """The other of the two operands."""
    return "input2" if operand == "input1" else "input1"


class BinaryBackward(Op):
    """d_self = d_output * factor, summed where the operand `self` was broadcast; see `factors`.

    The attribute `shapes` holds those of `self` and `other`. Either operand is left out where its values don't matter.
    Sums are int64; their largest, computed before they are stored, gives the shift.
    """

    operands = ("d_output",)
    optional = ("self", "other")
    results = ("d_self",)
    source = "tp_binary_backward.c"
    kernel = ""
    params = ""

    def factors(self, op: Operation, own: np.ndarray, other: np.ndarray) -> np.ndarray:
        """The mantissas of the factors from the int8 values of both operands, int64."""
        raise NotImplementedError

    def parameters(self, op: Operation) -> dict[str, int]:
        """The fields of the kernel's struct: `largest` and `exponent` of the factors, and those of its own."""
        raise NotImplementedError

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"d_self": op.attributes["shapes"][0]}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        d_output: BlockFloat = values["d_output"]
        p = self.parameters(op)
        nothing = np.zeros((), np.int64)
        own, other = (values[n].astype(np.int64) if n in op.inputs else nothing for n in ("self", "other"))
        products = d_output.mantissa.astype(np.int64) * self.factors(op, own, other)
        totals = sum_to(products, op.output.shape)
        bound = d_output.peak * p["largest"] if not _sums(op) else int(np.abs(totals).max())
        return {"d_self": narrowed(op.output, totals, d_output.exponent + p["exponent"], bound)}

    def in_place(self, op: Operation) -> dict[str, tuple[str, ...]]:
        return {} if _sums(op) else {"d_self": ("d_output",)}

    def call(self, op: Operation) -> KernelCall:
        broadcast = make_broadcast(*op.attributes["shapes"])
        assert broadcast is not None
        fields = {"broadcast": broadcast.fields(), **self.parameters(op)}
        arguments: list[Any] = [op.inputs["d_output"], op.inputs.get("self"), op.inputs.get("other"), op.output]
        return KernelCall(self.kernel, self.params, fields, arguments)

    def macs(self, op: Operation) -> int:
        return op.inputs["d_output"].size


def _sums(op: Operation) -> bool:
    return op.output.size != op.inputs["d_output"].size


@register
class ScaledBackward(BinaryBackward):
    """The gradient of an operand on which the output depends by a factor linear in both operands.

    factor = own * (self - zero point) + other * (other - zero point) + constant, of real values: the attribute
    `factor` is (own, other, constant), `quantization` the (scale, zero point) of both.
    """

    name = "SCALED_BACKWARD"
    kernel = "tp_scaled_backward_s16"
    params = "tp_scaled_backward_params"

    def factors(self, op: Operation, own: np.ndarray, other: np.ndarray) -> np.ndarray:
        p = self.parameters(op)
        total = p["self_coefficient"] * own + p["other_coefficient"] * other + p["constant"]
        return round_half_up_shift(total, p["factor_shift"])

    def parameters(self, op: Operation) -> dict[str, int]:
        own, other, constant = op.attributes["factor"]
        if constant:  # of +-1 and alone: exact
            return {
                "self_coefficient": 0, "other_coefficient": 0, "constant": constant, "factor_shift": 0,
                "largest": 1, "exponent": 0,
            }  # fmt: skip
        scales, zero_points = zip(*op.attributes["quantization"], strict=True)
        reals = np.array([own, other]) * np.array(scales)
        magnitudes, exponent = channel_fold(np.abs(reals))
        coefficients = [int(m) * (-1 if real < 0 else 1) for m, real in zip(magnitudes, reals, strict=True)]
        bound = sum(int(m) * max(127 - zero, zero + 128) for m, zero in zip(magnitudes, zero_points, strict=True))
        shift = narrow_shift(bound)
        return {
            "self_coefficient": coefficients[0],
            "other_coefficient": coefficients[1],
            "constant": -sum(c * zero for c, zero in zip(coefficients, zero_points, strict=True)),
            "factor_shift": shift,
            "largest": int(round_half_up_shift(bound, shift)),
            "exponent": exponent + shift,
        }


def emit_scaled(
    op: Operation, operand: str, d_output: Tensor, builder: Builder, factor: tuple[float, float, int]
) -> Tensor:
    """The gradient of `operand`: SCALED_BACKWARD, or `d_output` itself where that is it."""
    own, other = op.inputs[operand], op.inputs[other_than(operand)]
    if factor == (0, 0, 1) and own.shape == op.output.shape:
        return d_output
    d_self = builder.gradient(own)
    inputs = {"d_output": d_output}
    inputs |= {name: tensor for name, tensor, of in (("self", own, factor[0]), ("other", other, factor[1])) if of}
    attributes = {
        "factor": factor, "shapes": (own.shape, other.shape), "quantization": (per_tensor(own), per_tensor(other))
    }  # fmt: skip
    builder.emit("SCALED_BACKWARD", op, inputs, {"d_self": d_self}, attributes)
    return d_self
