"""ADD and SUB: elementwise sums and differences of int8 tensors, each with its own scale."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinypeft.arithmetic import requantize_double
from tinypeft.ir import Operation, Tensor
from tinypeft.ops.activation import output_range
from tinypeft.ops.base import Builder, Value, register
from tinypeft.ops.binary import Binary, aligned_parameters, aligned_terms, emit_scaled
from tinypeft.ops.constraints import per_tensor

LEFT_SHIFT = 20


class Sum(Binary):
    """output = clamp(requantize(requantize(input1) + sign * requantize(input2)))."""

    source = "tp_add.c"
    params = "tp_add_params"
    limits = (
        f"{Binary.limits} So are outputs of a scale next to nothing, as a layer gets that is constant in calibration."
    )
    sign = 1
    extreme_at_corners = True

    def check_scales(self, op: Operation) -> str | None:
        scale, largest = per_tensor(op.output)[0], max(per_tensor(t)[0] for t in op.inputs.values())
        if 2 * largest >= scale * (1 << LEFT_SHIFT):
            return f"{op.output.name} has scale {scale:g}, too small for inputs of scale {largest:g}"
        return None

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        p = self.parameters(op)
        term1, term2 = aligned_terms(p, values)
        total = term1 + self.sign * term2
        result = requantize_double(total, p["output_multiplier"], p["output_shift"]) + p["output_offset"]
        return {"output": np.clip(result, p["activation_min"], p["activation_max"]).astype(np.int8)}

    def vjp(self, op: Operation, d_output: Tensor, builder: Builder) -> dict[str, Tensor]:
        wanted = self.wanted(op, builder)
        if not wanted:
            return {}
        d_sum = builder.through_output(op, d_output)
        signs = {"input1": 1, "input2": self.sign}
        return {name: emit_scaled(op, name, d_sum, builder, (0, 0, signs[name])) for name in wanted}

    def parameters(self, op: Operation) -> dict[str, Any]:
        low, high = output_range(op)
        return aligned_parameters(op, LEFT_SHIFT, 1) | {"activation_min": low, "activation_max": high}


@register
class Add(Sum):
    """output = clamp(input1 + input2); either may be constant or broadcast."""

    name = "ADD"
    kernel = "tp_add_s8"


@register
class Sub(Sum):
    """output = clamp(input1 - input2); either may be constant or broadcast."""

    name = "SUB"
    kernel = "tp_sub_s8"
    sign = -1
