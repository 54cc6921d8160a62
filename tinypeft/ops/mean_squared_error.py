"""MEAN_SQUARED_ERROR: the loss of outputs against a target vector or the model's own input, in integers."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinypeft.arithmetic import fixed_point, float_multiplier, round_half_up_shift, saturate_s32
from tinypeft.ir import Operation
from tinypeft.ops.base import KernelCall, Value, register
from tinypeft.ops.constraints import per_tensor
from tinypeft.ops.loss import (
    LossOp,
    block_float,
    gradient_fields,
    logit_exponent,
    loss_arguments,
    loss_results,
    share,
)

#: Bits of a difference that is squared: MAX_OUTPUTS squares then add up to less than 2**62.
_SQUARED_BITS = 23


@register
class MeanSquaredError(LossOp):
    """loss = mean((logits - target)**2), d_logits = 2 * (logits - target) / N.

    `target` is (N,) int32 in Q16.16, or an int8 tensor of N elements by its scale; both are rounded to the logits'
    steps, and a difference is limited to int32 of them.
    """

    name = "MEAN_SQUARED_ERROR"

    def check(self, op: Operation) -> str | None:
        target, logits = op.inputs["target"], op.inputs["logits"]
        if target.size != logits.size:
            return f"the output has {logits.size} elements and its target, {target.name}, {target.size}"
        return super().check(op)

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        exponent = logit_exponent(op)
        logits, target = (values[name].reshape(-1).astype(np.int64) for name in ("logits", "target"))
        if op.inputs["target"].dtype == "int8":
            p = _input_parameters(op)
            wanted = fixed_point(target + p["input_offset"], p["input_multiplier"], p["input_shift"])
        else:
            wanted = saturate_s32(round_half_up_shift(target, 16 + exponent))
        difference = saturate_s32(logits - wanted)
        dropped = max(int(np.abs(difference.astype(np.int64)).max()).bit_length() - _SQUARED_BITS, 0)
        total = int((round_half_up_shift(difference, dropped) ** 2).sum())
        shift = -16 - 2 * (exponent + dropped)
        total = int(round_half_up_shift(total, shift)) if shift >= 0 else min(total, 1 << (62 + shift)) << -shift
        loss = saturate_s32((total + logits.size // 2) // logits.size)
        multiplier, power = share(2, logits.size)
        d_logits = block_float(
            op.outputs["d_logits"], difference.reshape(op.inputs["logits"].shape), multiplier, power + exponent
        )
        return loss_results(op, values, loss, d_logits)

    def call(self, op: Operation) -> KernelCall:
        size, exponent, target = op.inputs["logits"].size, logit_exponent(op), op.inputs["target"]
        multiplier, power = share(2, size)
        fields = {"size": size, "exponent": exponent, **gradient_fields(multiplier, power + exponent)}
        own: list[Any] = [target, None]
        if target.dtype == "int8":
            fields |= _input_parameters(op)
            own = [None, target]
        arguments = [op.inputs["logits"], *own, *loss_arguments(op)]
        return KernelCall("tp_mean_squared_error_s32", "tp_mean_squared_error_params", fields, arguments)


def _input_parameters(op: Operation) -> dict[str, int]:
    scale, zero_point = per_tensor(op.inputs["target"])
    multiplier, power = (int(v) for v in float_multiplier(np.float32(scale)))
    return {"input_offset": -zero_point, "input_multiplier": multiplier, "input_shift": logit_exponent(op) - power}
