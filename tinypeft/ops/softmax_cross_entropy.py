"""SOFTMAX_CROSS_ENTROPY: the loss of a classifier against a label, in integers."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinypeft.arithmetic import (
    exponential,
    fixed_point,
    log_fixed,
    quantize_multiplier,
    round_half_up_shift,
    round_half_up_wide,
    saturate_s32,
)
from tinypeft.ir import Operation
from tinypeft.ops.base import CArray, KernelCall, Value, register
from tinypeft.ops.loss import LossOp, block_float, logit_exponent, loss_arguments, loss_results

_ONE = 1 << 31  # as Q0.31


@register
class SoftmaxCrossEntropy(LossOp):
    """loss = weight[label] * -sum(t * log(softmax(logits))), t = onehot(label) * (1 - smoothing) + smoothing / classes.

    d_logits = weight[label] * (softmax(logits) - t). Attributes `label_smoothing` and `class_weights`, empty for none.
    """

    name = "SOFTMAX_CROSS_ENTROPY"

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        logits, label = values["logits"].reshape(-1).astype(np.int64), int(values["target"])
        exponent, smoothing = logit_exponent(op), _smoothing(op)
        distance = logits.max() - logits
        exponentials = exponential(-distance, exponent)
        total = int(exponentials.sum())
        rest = total - int(exponentials[label])
        difference = _divide(exponentials << 31, total)
        # what is missing to 1 is known to 31 bits too where the label is nearly certain
        difference[label] = difference[label] - _ONE if rest > exponentials[label] else -_divide(rest << 31, total)
        spread = _divide(2 * smoothing, len(logits))
        difference -= spread
        difference[label] += 2 * smoothing

        far = int(distance[label])
        far += int(round_half_up_wide((_divide(int(distance.sum()), len(logits)) - far) * smoothing, 30))
        fine = (far << (26 + exponent)) + log_fixed(max(total, _ONE))
        loss = saturate_s32(round_half_up_shift(fine, 10))
        multiplier, power = 1, 0
        if op.attributes["class_weights"]:
            multiplier, power = (int(table[label]) for table in _weights(op))
            loss = fixed_point(loss, multiplier, -power)
        d_logits = block_float(
            op.outputs["d_logits"], saturate_s32(difference).reshape(op.inputs["logits"].shape), multiplier, power - 31
        )
        return loss_results(op, values, loss, d_logits)

    def scratch_bytes(self, op: Operation) -> int:
        return op.inputs["logits"].nbytes

    def call(self, op: Operation) -> KernelCall:
        multipliers, exponents = _weights(op)
        weighted = bool(op.attributes["class_weights"])
        fields: dict[str, Any] = {
            "classes": op.inputs["logits"].size,
            "exponent": logit_exponent(op),
            "smoothing": _smoothing(op),
            "weight_multiplier": CArray("int32_t", multipliers) if weighted else None,
            "weight_exponent": CArray("int32_t", exponents) if weighted else None,
        }
        arguments = [op.inputs["logits"], op.inputs["target"], *loss_arguments(op)]
        return KernelCall("tp_softmax_cross_entropy_s32", "tp_softmax_cross_entropy_params", fields, arguments)


def _smoothing(op: Operation) -> int:
    """As Q1.30."""
    return round(op.attributes["label_smoothing"] * (1 << 30))


def _weights(op: Operation) -> tuple[np.ndarray, np.ndarray]:
    """(multipliers, exponents) of the classes' weights, int32."""
    pairs = [quantize_multiplier(float(np.float32(weight))) for weight in op.attributes["class_weights"]]
    return np.array([m for m, _ in pairs], np.int32), np.array([shift - 31 for _, shift in pairs], np.int32)


def _divide(a: Any, b: int) -> Any:
    """a / b rounded half up, of a >= 0."""
    return (a + b // 2) // b
