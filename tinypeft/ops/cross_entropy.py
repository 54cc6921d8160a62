"""SOFTMAX_CROSS_ENTROPY: the loss of float32 logits and its gradient."""

from __future__ import annotations

import numpy as np

from tinypeft import arithmetic
from tinypeft.arithmetic import F32
from tinypeft.ir import Operation
from tinypeft.ops.base import BlockFloat, KernelCall, Op, Value, register


def to_block_float(values: np.ndarray) -> BlockFloat:
    """float32 values as mantissas of the exponent that the largest needs, rounded half up."""
    largest = np.abs(values).max()
    exponent = max(arithmetic.float_exponent(largest) - 14, -100) if largest > 0 else 0
    mantissa = arithmetic.round_to_int(values * arithmetic.exp2i(-exponent))
    return BlockFloat(np.clip(mantissa, -32767, 32767).astype(np.int16), exponent)


@register
class SoftmaxCrossEntropy(Op):
    """loss = log(sum(exp(logits))) - logits[label], and d_logits = softmax(logits) - onehot(label).

    float32 operations one at a time, in order of the classes. `logit_range` keeps the smallest and largest logit seen.
    """

    name = "SOFTMAX_CROSS_ENTROPY"
    operands = ("logits", "label")
    optional = ("logit_range",)
    results = ("loss", "d_logits", "logit_range")
    source = "tp_loss.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"loss": (1,), "d_logits": op.inputs["logits"].shape}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        logits, label = values["logits"].reshape(-1), int(values["label"])
        smallest, largest = min(logits), max(logits)
        exponentials = arithmetic.exp_f32(logits - largest)
        total = F32(0.0)
        for value in exponentials:
            total = total + value
        gradient = exponentials / total
        gradient[label] = gradient[label] - F32(1.0)
        loss = arithmetic.log_f32(float(total)) - (logits[label] - largest)
        results: dict[str, Value] = {
            "loss": np.array([loss], np.float32),
            "d_logits": to_block_float(gradient.reshape(values["logits"].shape)),
        }
        if "logit_range" in op.inputs:
            low, high = values["logit_range"]
            results["logit_range"] = np.array([min(low, smallest), max(high, largest)], np.float32)
        return results

    def scratch_bytes(self, op: Operation) -> int:
        return 4 * op.inputs["logits"].size

    def call(self, op: Operation) -> KernelCall:
        outputs = [op.outputs["loss"], op.outputs["d_logits"], op.inputs.get("logit_range")]
        arguments = [op.inputs["logits"], op.inputs["label"], *outputs]
        fields = {"classes": op.inputs["logits"].size}
        return KernelCall("tp_softmax_cross_entropy_f32", "tp_cross_entropy_params", fields, arguments)
