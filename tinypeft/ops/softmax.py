"""SOFTMAX: int8 to int8 probabilities of scale 1/256, in LiteRT's fixed point (gemmlowp), and its gradient.

A SOFTMAX at the end of a model is not trained through: the loss is computed from the logits in front of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinypeft.arithmetic import (
    INT32_MAX,
    INT32_MIN,
    exp_on_negative_values,
    quantize_multiplier,
    requantize_double,
    rounding_shift_right,
    saturating_doubling_high_mul,
)
from tinypeft.ir import Operation, Tensor
from tinypeft.ops.activation import INT8_MIN, saturate
from tinypeft.ops.base import BlockFloat, Builder, KernelCall, Op, Value, register
from tinypeft.ops.constraints import per_tensor, require_int8
from tinypeft.ops.mantissas import narrowed

# Fixed point Qm.n holds m integer and n fractional bits: Q5.26 differences, Q0.31 exponentials, Q12.19 their sum.
DIFF_INTEGER_BITS, SUM_INTEGER_BITS = 5, 12
#: Most values of which the sum of exponentials fits; from 512 on, LiteRT's reference kernel aborts.
MAX_DEPTH = (1 << SUM_INTEGER_BITS) - 1
#: Fractional bits of a gradient minus its mean: with 8 bits of probability and a sign, 31 bits in all.
MEAN_BITS = 6
#: Largest |probability * (gradient - mean)| for a gradient of 1: 255 * 2 in the bits above.
LARGEST = 255 * 2 << MEAN_BITS


@register
class Softmax(Op):
    """Softmax over the last dimension; `input_shift` (1,) makes the input's scale larger by 2**input_shift."""

    name = "SOFTMAX"
    operands = ("input",)
    optional = ("input_shift",)
    source = "tp_softmax.c"

    def from_tflite(
        self, options: Any, inputs: list[Tensor | None], outputs: list[Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        require_int8(inputs[0], *outputs)
        assert inputs[0] is not None
        return {"input": inputs[0]}, {"beta": float(np.float32(options.beta))}

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"output": op.inputs["input"].shape}

    def check(self, op: Operation) -> str | None:
        scale, zero_point = per_tensor(op.output)
        if abs(scale * 256 - 1) > 1e-3 or zero_point != INT8_MIN:
            return f"{op.output.name} has scale {scale:g} and zero point {zero_point}, supported is 1/256 and -128"
        if op.output.shape[-1] > MAX_DEPTH:
            return f"a softmax over {op.output.shape[-1]} values is not supported, the most is {MAX_DEPTH}"
        if op.attributes["beta"] * per_tensor(op.inputs["input"])[0] * 2.0**26 <= 1:
            return f"{op.inputs['input'].name} has scale {per_tensor(op.inputs['input'])[0]:g}, too small for a softmax"
        return None

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        p = _parameters(op)
        shift = p["input_left_shift"] + (int(values["input_shift"][0]) if "input_shift" in values else 0)
        shift = min(max(shift, 0), 31)
        x = values["input"].reshape(p["rows"], p["depth"]).astype(np.int64)
        diff = x - x.max(axis=1, keepdims=True)
        counted = diff >= -((31 << 26) >> shift)
        scaled = requantize_double(np.where(counted, diff, 0), p["input_multiplier"], shift)
        exponentials = exp_on_negative_values(scaled)
        terms = np.where(counted, rounding_shift_right(exponentials, SUM_INTEGER_BITS), 0)
        total = terms.sum(axis=1, keepdims=True)
        headroom = 32 - np.frexp(total.astype(np.float64))[1].astype(np.int64)
        reciprocal = _one_over_one_plus((total << headroom) - (1 << 31))
        product = saturating_doubling_high_mul(exponentials, reciprocal)
        result = rounding_shift_right(product, SUM_INTEGER_BITS - headroom + 31 - 8) + INT8_MIN
        return {"output": saturate(np.where(counted, result, INT8_MIN)).reshape(op.output.shape)}

    def vjp(self, op: Operation, d_output: Tensor, builder: Builder) -> dict[str, Tensor]:
        x, beta = op.inputs["input"], op.attributes["beta"]
        if not builder.needs(x):
            return {}
        d_input = builder.gradient(x)
        inputs = {"d_output": d_output, "output": op.output}
        builder.emit("SOFTMAX_BACKWARD", op, inputs, {"d_input": d_input})
        if beta == 1:
            return {"input": d_input}
        d_scaled = builder.gradient(x)
        attributes = {"channel_scale": np.full(x.shape[-1], beta, np.float32)}
        builder.emit("REQUANTIZE_BACKWARD", op, {"d_output": d_input}, {"d_acc": d_scaled}, attributes)
        return {"input": d_scaled}

    def in_place(self, op: Operation) -> dict[str, tuple[str, ...]]:
        return {"output": ("input",)}

    def call(self, op: Operation) -> KernelCall:
        arguments: list[Any] = [op.inputs["input"], op.inputs.get("input_shift"), op.outputs["output"]]
        return KernelCall("tp_softmax_s8", "tp_softmax_params", {**_parameters(op)}, arguments)


@register
class SoftmaxBackward(Op):
    """d_input = p * (d_output - mean of d_output weighted by p) of each row, p the int8 probabilities `output`.

    The weights add up to 1 exactly, as the rounded probabilities need not: so does d_input to 0, but for rounding.
    """

    name = "SOFTMAX_BACKWARD"
    operands = ("d_output", "output")
    results = ("d_input",)
    source = "tp_softmax.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"d_input": op.inputs["output"].shape}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        d_output: BlockFloat = values["d_output"]
        depth = op.output.shape[-1]
        p = values["output"].reshape(-1, depth).astype(np.int64) - INT8_MIN
        d = d_output.mantissa.reshape(-1, depth).astype(np.int64) << MEAN_BITS
        total = p.sum(axis=1, keepdims=True)
        mean = (d * p).sum(axis=1, keepdims=True) // np.maximum(total, 1)
        exponent = d_output.exponent - 8 - MEAN_BITS
        return {"d_input": narrowed(op.output, p * (d - mean), exponent, d_output.peak * LARGEST)}

    def in_place(self, op: Operation) -> dict[str, tuple[str, ...]]:
        return {"d_input": ("d_output",)}

    def call(self, op: Operation) -> KernelCall:
        depth = op.output.shape[-1]
        fields = {"rows": op.output.size // depth, "depth": depth}
        arguments: list[Any] = [op.inputs["d_output"], op.inputs["output"], op.output]
        return KernelCall("tp_softmax_backward_s16", "tp_softmax_backward_params", fields, arguments)

    def macs(self, op: Operation) -> int:
        return 2 * op.output.size


def _parameters(op: Operation) -> dict[str, int]:
    depth = op.output.shape[-1]
    real = op.attributes["beta"] * per_tensor(op.inputs["input"])[0] * 2.0 ** (31 - DIFF_INTEGER_BITS)
    multiplier, shift = quantize_multiplier(min(real, 2.0**31 - 1))
    return {"rows": op.output.size // depth, "depth": depth, "input_multiplier": multiplier, "input_left_shift": shift}


def _one_over_one_plus(a: np.ndarray) -> np.ndarray:
    """1 / (1 + a) of Q0.31 values in [0, 1], as Q0.31: Newton's iteration in Q2.29."""
    mul = saturating_doubling_high_mul
    half_denominator = (a + INT32_MAX + 1) // 2
    x = 1515870810 + mul(half_denominator, -1010580540)
    for _ in range(3):
        x = x + _saturating_shift_left(mul(x, (1 << 29) - mul(half_denominator, x)), 2)
    return _saturating_shift_left(x, 1)


def _saturating_shift_left(x: np.ndarray, bits: int) -> np.ndarray:
    return np.clip(x << bits, INT32_MIN, INT32_MAX)
