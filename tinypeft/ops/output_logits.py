"""OUTPUT_LOGITS: an int8 output as the int32 fixed point that losses read, and the scale of that fixed point."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinypeft.arithmetic import F32, fixed_point, float_exponent, float_multiplier
from tinypeft.ir import Operation, Purpose, Tensor
from tinypeft.ops.base import Builder, KernelCall, Op, Value, register
from tinypeft.ops.constraints import per_tensor

#: How many times the range of the int8 output fits the logits
HEADROOM = 512
#: Logits reach at least +-2**7, and no step is larger than 1.
MIN_EXPONENT, MAX_EXPONENT = -24, 0


def exponent_for(output: Tensor) -> int:
    """The exponent of the logits behind the int8 tensor `output`: logit = q * 2**exponent."""
    scale, _ = per_tensor(output)
    _, exponent = math.frexp(HEADROOM * 255 * scale)
    return min(max(exponent - 31, MIN_EXPONENT), MAX_EXPONENT)


def logits_tensor(shape: tuple[int, ...], exponent: int) -> Tensor:
    """int32 logits whose scale is 2**exponent."""
    return Tensor("logits", shape, "int32", Purpose.ACTIVATION, np.array([2.0**exponent], np.float32))


@register
class OutputLogits(Op):
    """logits = scale * (input - zero_point) in steps of their own scale, a power of two; rounded half up, saturated."""

    name = "OUTPUT_LOGITS"
    operands = ("input",)
    results = ("logits",)
    source = "tp_loss.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"logits": op.inputs["input"].shape}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        fields = _fields(op)
        centred = values["input"].astype(np.int64) + fields["input_offset"]
        return {"logits": fixed_point(centred, fields["multiplier"], fields["shift"])}

    def vjp(self, op: Operation, d_output: Tensor, builder: Builder) -> dict[str, Tensor]:
        # Gradients are in real units, so that of the int8 input is the same.
        return {"input": d_output} if builder.needs(op.inputs["input"]) else {}

    def call(self, op: Operation) -> KernelCall:
        arguments: list[Any] = [op.inputs["input"], op.output]
        return KernelCall("tp_output_logits_s8", "tp_output_logits_params", _fields(op), arguments)


def _fields(op: Operation) -> dict[str, Any]:
    scale, zero_point = per_tensor(op.inputs["input"])
    multiplier, power = (int(v) for v in float_multiplier(F32(scale)))
    assert op.output.scale is not None
    shift = float_exponent(op.output.scale[0]) - power
    return {"size": op.output.size, "input_offset": -zero_point, "multiplier": multiplier, "shift": shift}
