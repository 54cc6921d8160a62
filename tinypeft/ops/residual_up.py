"""RESIDUAL_UP: a layer's int8 output plus what a bottleneck behind it gives."""

from __future__ import annotations

import numpy as np

from tinypeft.arithmetic import round_half_up_shift
from tinypeft.ir import Operation, Tensor
from tinypeft.ops.activation import output_range, saturate
from tinypeft.ops.base import Builder, KernelCall, Op, Value, register
from tinypeft.ops.weighted import LORA_OPERANDS, lora_gradients, lora_rank


@register
class ResidualUp(Op):
    """output = clamp(input + (lora_B . hidden) >> lora_shift), of the input's scale and zero point.

    input (...,C), hidden int16 (positions,r), lora_B (C,r). The attribute `lora` is the LoraState of the projections.
    """

    name = "RESIDUAL_UP"
    operands = ("input", *LORA_OPERANDS)
    source = "tp_bottleneck.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"output": op.inputs["input"].shape}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        x = values["input"].astype(np.int64).reshape(-1, op.output.shape[-1])
        hidden = values["hidden"].astype(np.int64).reshape(len(x), -1)
        added = round_half_up_shift(hidden @ values["lora_B"].astype(np.int64).T, values["lora_shift"])
        return {"output": saturate(x + added).reshape(op.output.shape)}

    def vjp(self, op: Operation, d_output: Tensor, builder: Builder) -> dict[str, Tensor]:
        d_sum = builder.through_output(op, d_output)
        gradients = lora_gradients(op, d_sum, builder)
        return gradients | ({"input": d_sum} if builder.needs(op.inputs["input"]) else {})

    def in_place(self, op: Operation) -> dict[str, tuple[str, ...]]:
        return {"output": ("input",)}

    def call(self, op: Operation) -> KernelCall:
        low, high = output_range(op)
        channels = op.output.shape[-1]
        fields = {
            "positions": op.output.size // channels,
            "channels": channels,
            "rank": lora_rank(op),
            "activation_min": low,
            "activation_max": high,
        }
        arguments = [*(op.inputs[name] for name in self.operands), op.output]
        return KernelCall("tp_residual_up_s8", "tp_residual_up_params", fields, arguments)

    def macs(self, op: Operation) -> int:
        return op.output.size * lora_rank(op)
