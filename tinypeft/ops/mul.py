"""MUL and SQUARED_DIFFERENCE: elementwise products of int8 tensors, and of their differences with themselves."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinypeft.arithmetic import quantize_multiplier, requantize_double
from tinypeft.ir import Operation, Tensor
from tinypeft.ops.activation import output_range, saturate
from tinypeft.ops.base import Builder, Value, register
from tinypeft.ops.binary import Binary, aligned_parameters, aligned_terms, emit_scaled
from tinypeft.ops.constraints import per_tensor

#: Largest shift to the left of the product of two centred int8 inside int32.
MAX_SHIFT = 14
#: Of both inputs of a squared difference, before they are scaled.
LEFT_SHIFT = 7


@register
class Mul(Binary):
    """output = clamp(input1 * input2); either may be constant or broadcast."""

    name = "MUL"
    source = "tp_mul.c"
    kernel = "tp_mul_s8"
    params = "tp_mul_params"
    extreme_at_corners = True

    def check_scales(self, op: Operation) -> str | None:
        if self.parameters(op)["output_shift"] <= MAX_SHIFT:
            return None
        scale1, scale2, scale = (per_tensor(t)[0] for t in (*op.inputs.values(), op.output))
        return f"{op.output.name} has scale {scale:g}, too small for inputs of scales {scale1:g} and {scale2:g}"

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        p = self.parameters(op)
        centred1, centred2 = (values[name].astype(np.int64) + p[f"{name}_offset"] for name in self.operands)
        result = requantize_double(centred1 * centred2, p["output_multiplier"], p["output_shift"])
        result = np.clip(result + p["output_offset"], p["activation_min"], p["activation_max"])
        return {"output": result.astype(np.int8)}

    def vjp(self, op: Operation, d_output: Tensor, builder: Builder) -> dict[str, Tensor]:
        wanted = self.wanted(op, builder)
        if not wanted:
            return {}
        d_product = builder.through_output(op, d_output)
        return {name: emit_scaled(op, name, d_product, builder, (0.0, 1.0, 0)) for name in wanted}

    def parameters(self, op: Operation) -> dict[str, Any]:
        (scale1, zero1), (scale2, zero2) = (per_tensor(op.inputs[name]) for name in self.operands)
        scale, zero = per_tensor(op.output)
        multiplier, shift = quantize_multiplier(float(np.float32(scale1) * np.float32(scale2) / np.float32(scale)))
        low, high = output_range(op)
        return {
            "input1_offset": -zero1, "input2_offset": -zero2,
            "output_offset": zero, "output_multiplier": multiplier, "output_shift": shift,
            "activation_min": low, "activation_max": high,
        }  # fmt: skip


@register
class SquaredDifference(Binary):
    """output = (input1 - input2)**2; either may be constant or broadcast."""

    name = "SQUARED_DIFFERENCE"
    source = "tp_mul.c"
    kernel = "tp_squared_difference_s8"
    params = "tp_squared_difference_params"

    def attributes(self, options: Any) -> dict[str, Any]:
        return {}

    def check_scales(self, op: Operation) -> str | None:
        scale, largest = per_tensor(op.output)[0], max(per_tensor(t)[0] for t in op.inputs.values())
        if (2 * largest) ** 2 >= scale * (1 << 2 * LEFT_SHIFT):
            return f"{op.output.name} has scale {scale:g}, too small for inputs of scale {largest:g}"
        return None

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        p = self.parameters(op)
        term1, term2 = aligned_terms(p, values)
        result = requantize_double((term1 - term2) ** 2, p["output_multiplier"], p["output_shift"])
        return {"output": saturate(result + p["output_offset"])}

    def vjp(self, op: Operation, d_output: Tensor, builder: Builder) -> dict[str, Tensor]:
        wanted = self.wanted(op, builder)
        if not wanted:
            return {}
        d_square = builder.through_output(op, d_output)
        return {name: emit_scaled(op, name, d_square, builder, (2.0, -2.0, 0)) for name in wanted}

    def parameters(self, op: Operation) -> dict[str, Any]:
        return aligned_parameters(op, LEFT_SHIFT, 2)
