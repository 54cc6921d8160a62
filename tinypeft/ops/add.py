"""ADD: the elementwise sum of two int8 tensors of one shape, each with its own scale."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinypeft.arithmetic import quantize_multiplier, requantize_double
from tinypeft.errors import ModelError
from tinypeft.ir import Operation, Tensor
from tinypeft.ops.activation import activation_from_tflite, output_range
from tinypeft.ops.base import Builder, KernelCall, Op, Value, register
from tinypeft.ops.constraints import per_tensor, require_int8

LEFT_SHIFT = 20


@register
class Add(Op):
    """output = clamp(requantize(requantize(input1) + requantize(input2))); either input may be constant."""

    name = "ADD"
    operands = ("input1", "input2")
    source = "tp_add.c"

    def from_tflite(
        self, options: Any, inputs: list[Tensor | None], outputs: list[Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        require_int8(*inputs, *outputs)
        input1, input2 = inputs
        assert input1 is not None and input2 is not None
        if input1.shape != input2.shape:
            raise ModelError(
                f"an addition of {input1.shape} and {input2.shape} broadcasts, which is not supported",
                "add tensors of one shape, or put a constant into the bias of the layer before",
            )
        return {"input1": input1, "input2": input2}, {"activation": activation_from_tflite(options)}

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"output": op.inputs["input1"].shape}

    def check(self, op: Operation) -> str | None:
        input1, input2 = op.inputs["input1"], op.inputs["input2"]
        if input1.shape != input2.shape:
            return f"{input1.name} has shape {input1.shape}, {input2.name} {input2.shape}: they must be the same"
        scale, largest = per_tensor(op.output)[0], max(per_tensor(input1)[0], per_tensor(input2)[0])
        if 2 * largest >= scale * (1 << LEFT_SHIFT):
            return f"{op.output.name} has scale {scale:g}, too small for inputs of scale {largest:g}"
        return None

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        p = _parameters(op)
        terms = [
            requantize_double(
                (values[f"input{i}"].astype(np.int64) + p[f"input{i}_offset"]) << LEFT_SHIFT,
                p[f"input{i}_multiplier"],
                p[f"input{i}_shift"],
            )
            for i in (1, 2)
        ]
        total = requantize_double(terms[0] + terms[1], p["output_multiplier"], p["output_shift"]) + p["output_offset"]
        return {"output": np.clip(total, p["activation_min"], p["activation_max"]).astype(np.int8)}

    def vjp(self, op: Operation, d_output: Tensor, builder: Builder) -> dict[str, Tensor]:
        wanted = [name for name in self.operands if builder.needs(op.inputs[name])]
        if not wanted:
            return {}
        d_sum = builder.through_output(op, d_output)
        return dict.fromkeys(wanted, d_sum)

    def in_place(self, op: Operation) -> dict[str, tuple[str, ...]]:
        return {"output": tuple(name for name in self.operands if op.inputs[name].in_arena)}

    def call(self, op: Operation) -> KernelCall:
        arguments: list[Any] = [op.inputs["input1"], op.inputs["input2"], op.outputs["output"]]
        return KernelCall("tp_add_s8", "tp_add_params", {"size": op.output.size, **_parameters(op)}, arguments)


def _parameters(op: Operation) -> dict[str, int]:
    (scale1, zero1), (scale2, zero2) = per_tensor(op.inputs["input1"]), per_tensor(op.inputs["input2"])
    scale, zero = per_tensor(op.output)
    twice = 2 * max(scale1, scale2)
    low, high = output_range(op)
    parameters = {"left_shift": LEFT_SHIFT, "activation_min": low, "activation_max": high}
    for name, offset, real in (
        ("input1", -zero1, scale1 / twice),
        ("input2", -zero2, scale2 / twice),
        ("output", zero, twice / ((1 << LEFT_SHIFT) * scale)),
    ):
        multiplier, shift = quantize_multiplier(real)
        parameters |= {f"{name}_offset": offset, f"{name}_multiplier": multiplier, f"{name}_shift": shift}
    return parameters
