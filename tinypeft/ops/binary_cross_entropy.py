"""BINARY_CROSS_ENTROPY: the loss of independent yes-or-no outputs, in integers."""

from __future__ import annotations

import numpy as np

from tinypeft.arithmetic import exponential, log_fixed, round_half_up_shift, saturate_s32
from tinypeft.ir import Operation
from tinypeft.ops.base import KernelCall, Value, register
from tinypeft.ops.loss import (
    ONE_Q16,
    LossOp,
    block_float,
    gradient_fields,
    logit_exponent,
    loss_arguments,
    loss_results,
    share,
)

_ONE = 1 << 31  # as Q0.31


@register
class BinaryCrossEntropy(LossOp):
    """loss = mean(-t * log(p) - (1 - t) * log(1 - p)) of p = sigmoid(logits), and d_logits = (p - t) / N.

    `target` (N,) holds t in Q16.16, limited to [0, 1].
    """

    name = "BINARY_CROSS_ENTROPY"

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        logits = values["logits"].reshape(-1).astype(np.int64)
        target = np.clip(values["target"].reshape(-1), 0, ONE_Q16).astype(np.int64)
        exponent, count = logit_exponent(op), logits.size
        positive, magnitude = logits >= 0, np.abs(logits)
        exponentials = exponential(-magnitude, exponent)
        small = ((exponentials << 31) + (_ONE + exponentials) // 2) // (_ONE + exponentials)  # sigmoid(-magnitude)
        missing = np.where(positive, ONE_Q16 - target, target)
        difference = (missing << 15) - small
        difference = saturate_s32(np.where(positive, difference, -difference))

        logarithms = sum(log_fixed(_ONE + int(e)) for e in exponentials)
        total = int(round_half_up_shift(magnitude * missing, -exponent).sum()) + int(
            round_half_up_shift(logarithms, 10)
        )
        loss = saturate_s32((total + count // 2) // count)
        multiplier, power = share(1, count)
        d_logits = block_float(
            op.outputs["d_logits"], difference.reshape(op.inputs["logits"].shape), multiplier, power - 31
        )
        return loss_results(op, values, loss, d_logits)

    def scratch_bytes(self, op: Operation) -> int:
        return op.inputs["logits"].nbytes

    def call(self, op: Operation) -> KernelCall:
        size = op.inputs["logits"].size
        multiplier, power = share(1, size)
        fields = {"size": size, "exponent": logit_exponent(op)} | gradient_fields(multiplier, power - 31)
        arguments = [op.inputs["logits"], op.inputs["target"], *loss_arguments(op)]
        return KernelCall("tp_binary_cross_entropy_s32", "tp_binary_cross_entropy_params", fields, arguments)
