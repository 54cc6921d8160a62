"""Elementary functions of one int8 tensor: ABS, NEG, SQUARE, SQRT, RSQRT, EXP and LOG."""

from __future__ import annotations

import functools
import math

import numpy as np

from tinypeft.arithmetic import (
    quantize_multiplier,
    requantize_double,
    rounding_shift_right,
    saturating_doubling_high_mul,
)
from tinypeft.ir import Operation
from tinypeft.ops.activation import INT8_MAX, INT8_MIN, saturate
from tinypeft.ops.activation_functions import FloatFunction
from tinypeft.ops.base import register
from tinypeft.ops.constraints import per_tensor
from tinypeft.ops.libm import expf, logf
from tinypeft.ops.lookup import LEVELS, BetweenFloats, Lookup, check_ratio, scale_ratio, too_small

F32 = np.float32
INT32_MIN, INT32_MAX = -(1 << 31), (1 << 31) - 1
#: Bits behind the point of 1 / sqrt(centred input).
RSQRT_BITS = 20


@register
class Abs(Lookup):
    """|input|."""

    name = "ABS"

    def check(self, op: Operation) -> str | None:
        return check_ratio(op, scale_ratio(op))

    def table(self, op: Operation) -> np.ndarray:
        (scale_in, zero_in), (scale_out, zero_out) = per_tensor(op.inputs["input"]), per_tensor(op.output)
        distance = np.abs(LEVELS - zero_in)
        if scale_in != scale_out:
            distance = requantize_double(distance, *quantize_multiplier(scale_ratio(op)))
        return saturate(distance + zero_out)

    def slope(self, op: Operation, x: np.ndarray) -> np.ndarray:
        return np.sign(x)


@register
class Neg(BetweenFloats):
    """-input: LiteRT's int8 kernel negates the int8 itself, which is right where the zero points are opposite."""

    name = "NEG"
    limits = "As int8: the scales must be the same, the zero points opposite. Between DEQUANTIZE and QUANTIZE: any."

    def check(self, op: Operation) -> str | None:
        (scale_in, zero_in), (scale_out, zero_out) = per_tensor(op.inputs["input"]), per_tensor(op.output)
        if op.attributes["float"] or (abs(scale_in - scale_out) <= 1e-6 * scale_out and zero_in == -zero_out):
            return None
        return (
            f"the input has scale {scale_in:g} and zero point {zero_in}, {op.output.name} {scale_out:g} and "
            f"{zero_out}: for a negation the scales must be the same and the zero points opposite"
        )

    def int8_table(self, op: Operation) -> np.ndarray:
        return (-LEVELS).astype(np.int8)  # -128 stays

    def function(self, op: Operation, x: np.ndarray) -> np.ndarray:
        return -x

    def slope(self, op: Operation, x: np.ndarray) -> np.ndarray:
        return np.full_like(x, -1.0)


@register
class Square(BetweenFloats):
    """input * input, as the converter writes it: in float32, between DEQUANTIZE and QUANTIZE, which are one table."""

    name = "SQUARE"
    limits = "Only between DEQUANTIZE and QUANTIZE: LiteRT has no int8 kernel of it."

    def check(self, op: Operation) -> str | None:
        if op.attributes["float"]:
            return None
        return "LiteRT has no int8 kernel of SQUARE; use a MUL of the input by itself"

    def function(self, op: Operation, x: np.ndarray) -> np.ndarray:
        return x * x

    def slope(self, op: Operation, x: np.ndarray) -> np.ndarray:
        return 2 * x


@register
class Sqrt(Lookup):
    """The square root of input, rounded down; of negative inputs, at which LiteRT stops, it is 0."""

    name = "SQRT"

    def check(self, op: Operation) -> str | None:
        return too_small(op) if _roots(op).max() >= 2.0**31 else None

    def table(self, op: Operation) -> np.ndarray:
        return saturate(np.trunc(_roots(op)) + per_tensor(op.output)[1])

    def slope(self, op: Operation, x: np.ndarray) -> np.ndarray:
        # at 0 as half a step above it
        scale, _ = per_tensor(op.inputs["input"])
        return np.where(x >= 0, 0.5 / np.sqrt(np.maximum(x, 0.5 * scale)), 0.0)


def _roots(op: Operation) -> np.ndarray:
    """The results in steps of the output, float32."""
    (scale_in, zero_in), (scale_out, _) = per_tensor(op.inputs["input"]), per_tensor(op.output)
    x = F32(scale_in) * np.maximum(LEVELS - zero_in, 0).astype(F32)
    return np.sqrt(x) / F32(scale_out)


@register
class Rsqrt(Lookup):
    """1 / sqrt(input) in fixed point; of 0, and of negative inputs, at which LiteRT stops, it is the largest int8."""

    name = "RSQRT"
    limits = "Scales at which LiteRT would shift by more than 31 bits are refused."

    def check(self, op: Operation) -> str | None:
        scale, shift = per_tensor(op.output)[0], _rsqrt_multiplier(op)[1] - RSQRT_BITS
        if -31 <= shift <= 30 - RSQRT_BITS:
            return None
        return f"{op.output.name} has scale {scale:g}, too {'large' if shift < 0 else 'small'} for an inverse root"

    def table(self, op: Operation) -> np.ndarray:
        (_, zero_in), (_, zero_out) = per_tensor(op.inputs["input"]), per_tensor(op.output)
        multiplier, shift = _rsqrt_multiplier(op)
        roots = np.array([_inverse_root(int(q) - zero_in) for q in LEVELS])
        results = requantize_double(roots, multiplier, shift - RSQRT_BITS)
        return np.where(zero_in < LEVELS, saturate(results + zero_out), INT8_MAX).astype(np.int8)

    def slope(self, op: Operation, x: np.ndarray) -> np.ndarray:
        scale, _ = per_tensor(op.inputs["input"])
        return np.where(x > 0, -0.5 * np.maximum(x, scale) ** -1.5, 0.0)


def _rsqrt_multiplier(op: Operation) -> tuple[int, int]:
    root = F32(np.sqrt(F32(per_tensor(op.inputs["input"])[0]))) * F32(per_tensor(op.output)[0])
    return quantize_multiplier(1.0 / float(root))


@functools.cache
def _inverse_root(value: int) -> int:
    """2**RSQRT_BITS / sqrt(value) of an integer up to 255, as gemmlowp's iteration of Newton in Q3.28 gives it."""
    one = np.ones((), np.int64)
    if value <= 1:
        return int(requantize_double(one, INT32_MAX, RSQRT_BITS))

    def times(a: int, b: int) -> int:
        return int(saturating_doubling_high_mul(a * one, b))

    def shift_left(a: int, bits: int) -> int:
        return min(max(a << bits, INT32_MIN), INT32_MAX)

    pairs = (31 - value.bit_length()) // 2 - 1  # value * 4**pairs lies in [2**27, 2**29)
    x_in = value << (2 * pairs) >> 1
    half_in, half_three = int(rounding_shift_right(x_in * one, 1)), (1 << 28) + (1 << 27)
    x = 1 << 28
    for _ in range(5):
        cube = shift_left(times(times(x, x), x), 6)
        x = shift_left(times(half_three, x) - times(half_in, cube), 3)
    root = times(x, 1518500250)  # sqrt(1/2)
    shift = 11 - pairs
    if shift < 0:
        root, shift = root << -shift, 0
    return int(requantize_double(one, root, RSQRT_BITS - shift))


@register
class Exp(FloatFunction):
    """e**input."""

    name = "EXP"

    def function(self, op: Operation, x: np.ndarray) -> np.ndarray:
        return expf(x)

    def slope(self, op: Operation, x: np.ndarray) -> np.ndarray:
        return np.exp(x)


@register
class Log(FloatFunction):
    """The natural logarithm of input; of 0 and below, the smallest int8."""

    name = "LOG"

    def function(self, op: Operation, x: np.ndarray) -> np.ndarray:
        scale, zero_point = per_tensor(op.output)
        smallest = F32(INT8_MIN - zero_point) * F32(scale)
        return np.where(x <= 0, smallest, logf(np.where(x <= 0, F32(1.0), x)))

    def slope(self, op: Operation, x: np.ndarray) -> np.ndarray:
        return np.where(x > 0, 1 / np.where(x > 0, x, math.inf), 0.0)
