"""What the operators of losses share: integer logits in, the loss in Q16.16 and the logits' gradient out.

Defines no operator.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinypeft.arithmetic import float_exponent, quantize_multiplier, round_half_up_wide
from tinypeft.ir import Operation, Tensor
from tinypeft.ops.base import BlockFloat, Op, Value
from tinypeft.ops.mantissas import mantissa_limit, stored

#: Most outputs over which the terms of a loss can be summed
MAX_OUTPUTS = 1 << 15
#: A target of 1 in Q16.16
ONE_Q16 = 1 << 16


class LossOp(Op):
    """loss (1,) int32 in Q16.16, saturated, and d_logits, of `logits` (...,N) int32 and a target.

    One step of the logits is their scale, a power of two. `logit_range` (2,) keeps the smallest and largest logit seen.
    """

    operands = ("logits", "target")
    optional = ("logit_range",)
    results = ("loss", "d_logits", "logit_range")
    source = "tp_loss.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"loss": (1,), "d_logits": op.inputs["logits"].shape}

    def check(self, op: Operation) -> str | None:
        size = op.inputs["logits"].size
        return (
            None if size <= MAX_OUTPUTS else f"a loss over {size} outputs is not supported, the most is {MAX_OUTPUTS}"
        )


def logit_exponent(op: Operation) -> int:
    """The exponent of the power of two that one step of the logits is."""
    scale = op.inputs["logits"].scale
    assert scale is not None
    return float_exponent(scale[0])


def loss_results(op: Operation, values: dict[str, Value], loss: np.ndarray, d_logits: BlockFloat) -> dict[str, Value]:
    """The results by name, with the range of the logits where it is kept."""
    results: dict[str, Value] = {"loss": loss.reshape(1), "d_logits": d_logits}
    if "logit_range" in op.inputs:
        low, high = values["logit_range"]
        logits = values["logits"]
        results["logit_range"] = np.array([min(low, logits.min()), max(high, logits.max())], np.int32)
    return results


def loss_arguments(op: Operation) -> list[Tensor | None]:
    """The last arguments of every loss's kernel."""
    return [op.outputs["loss"], op.outputs["d_logits"], op.inputs.get("logit_range")]


def share(parts: int, outputs: int) -> tuple[int, int]:
    """(multiplier, exponent) with multiplier * 2**exponent ~ parts / outputs."""
    multiplier, shift = quantize_multiplier(parts / outputs)
    return multiplier, shift - 31


def block_float(tensor: Tensor, values: np.ndarray, multiplier: int, exponent: int) -> BlockFloat:
    """int32 values * multiplier * 2**exponent as `tensor`: of the exponent that the largest needs, rounded half up."""
    products = np.asarray(values, np.int64) * multiplier
    largest = int(np.abs(products).max())
    limit = mantissa_limit(tensor)
    shift = max(largest.bit_length() - limit.bit_length(), 0)
    shift += int(round_half_up_wide(largest, shift)) > limit
    return stored(tensor, round_half_up_wide(products, shift), exponent + shift)


def gradient_fields(multiplier: int, exponent: int) -> dict[str, Any]:
    """Fields of a kernel's parameters: what its differences are to be multiplied with."""
    return {"gradient_multiplier": multiplier, "gradient_exponent": exponent}
