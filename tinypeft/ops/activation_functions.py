"""Activation functions that are operators of their own: the RELU family, HARD_SWISH, LOGISTIC, TANH, ELU and GELU."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinypeft.arithmetic import quantize_multiplier, rounding_shift_right
from tinypeft.ir import Operation
from tinypeft.ops.activation import check_activation, output_range, saturate
from tinypeft.ops.base import register
from tinypeft.ops.constraints import per_tensor
from tinypeft.ops.libm import erfcf, expf, expm1f, tanhf
from tinypeft.ops.lookup import (
    LEVELS,
    BetweenFloats,
    Lookup,
    check_float_table,
    check_ratio,
    float_table,
    integer_table,
    scale_ratio,
    too_small,
)

F32 = np.float32
INT16_MIN, INT16_MAX = -(1 << 15), (1 << 15) - 1


class Clamp(Lookup):
    """A function that limits its input; output = clamp(requantize(input))."""

    def attributes(self, options: Any) -> dict[str, Any]:
        return {"activation": self.name}

    def check(self, op: Operation) -> str | None:
        return check_ratio(op, scale_ratio(op)) or check_activation(op)

    def table(self, op: Operation) -> np.ndarray:
        result = integer_table(op, scale_ratio(op)) + per_tensor(op.output)[1]
        return np.clip(result, *output_range(op)).astype(np.int8)

    def slope(self, op: Operation, x: np.ndarray) -> np.ndarray:
        return np.ones_like(x)


@register
class Relu(Clamp):
    """max(input, 0), where it is not fused into the layer in front of it."""

    name = "RELU"


@register
class Relu6(Clamp):
    """min(max(input, 0), 6), where it is not fused into the layer in front of it."""

    name = "RELU6"
    limits = "An input scale so far above the output's that LiteRT's shift leaves int32 is refused."


@register
class Relu0To1(Clamp):
    """min(max(input, 0), 1)."""

    name = "RELU_0_TO_1"


@register
class ReluN1To1(Clamp):
    """min(max(input, -1), 1), where it is not fused into the layer in front of it."""

    name = "RELU_N1_TO_1"


@register
class LeakyRelu(Lookup):
    """input where it is positive, else the attribute `alpha` times input."""

    name = "LEAKY_RELU"
    limits = "An alpha below 0 is refused."

    def attributes(self, options: Any) -> dict[str, Any]:
        return {"alpha": float(F32(options.alpha))}

    def check(self, op: Operation) -> str | None:
        alpha = op.attributes["alpha"]
        if not 0 <= alpha < math.inf:
            return f"the slope of a leaky ReLU is {alpha:g}, it must not be negative"
        return check_ratio(op, max(scale_ratio(op), scale_ratio(op, alpha)))

    def table(self, op: Operation) -> np.ndarray:
        (_, zero_in), (_, zero_out) = per_tensor(op.inputs["input"]), per_tensor(op.output)
        identity, scaled = (integer_table(op, scale_ratio(op, factor)) for factor in (1.0, op.attributes["alpha"]))
        return saturate(np.where(zero_in <= LEVELS, identity, scaled) + zero_out)

    def slope(self, op: Operation, x: np.ndarray) -> np.ndarray:
        return np.where(x > 0, 1.0, op.attributes["alpha"])


@register
class HardSwish(Lookup):
    """input * min(max(input + 3, 0), 6) / 6, in LiteRT's 16-bit fixed point."""

    name = "HARD_SWISH"
    limits = "Output scales below 1/128 or above 512 times the input's, and input scales next to nothing, are refused."

    def check(self, op: Operation) -> str | None:
        (_, output_shift), (_, reluish_shift) = _hard_swish_multipliers(op)
        if output_shift > 0:
            return too_small(op)
        if output_shift < -15 or reluish_shift < -15 or reluish_shift > 30:
            (scale_in, _), (scale_out, _) = per_tensor(op.inputs["input"]), per_tensor(op.output)
            return f"a hard swish of scale {scale_in:g} to scale {scale_out:g} leaves its 16-bit arithmetic"
        return None

    def table(self, op: Operation) -> np.ndarray:
        (_, zero_in), (_, zero_out) = per_tensor(op.inputs["input"]), per_tensor(op.output)
        (output_multiplier, output_shift), (reluish_multiplier, reluish_shift) = _hard_swish_multipliers(op)
        x = (LEVELS.astype(np.int64) - zero_in) << 7
        reluish = x
        if reluish_shift > 0:
            reluish = _saturate_int16(reluish << (reluish_shift - 1))
        reluish = _high_mul_int16(reluish, reluish_multiplier)
        if reluish_shift > 0:
            reluish = _saturate_int16(reluish << 1)
        reluish = rounding_shift_right(reluish, max(-reluish_shift, 0))
        product = ((reluish + (1 << 15)) >> 1) * _high_mul_int16(x, output_multiplier)
        result = np.sign(product) * (np.abs(product) >> 15)
        return saturate(rounding_shift_right(result, -output_shift) + zero_out)

    def slope(self, op: Operation, x: np.ndarray) -> np.ndarray:
        return np.where(x <= -3, 0.0, np.where(x < 3, (2 * x + 3) / 6, 1.0))


def _hard_swish_multipliers(op: Operation) -> tuple[tuple[int, int], tuple[int, int]]:
    """The 15-bit multiplier and shift to the output's scale, and those of input + 3 to [-1, 1)."""
    fine = F32(1 / 128) * F32(per_tensor(op.inputs["input"])[0])
    pairs = [quantize_multiplier(float(fine / scale)) for scale in (F32(per_tensor(op.output)[0]), F32(3 / 32768))]
    (output, output_shift), (reluish, reluish_shift) = pairs
    short = [min((multiplier + (1 << 15)) >> 16, INT16_MAX) for multiplier in (output, reluish)]
    return (short[0], output_shift), (short[1], reluish_shift)


def _high_mul_int16(a: np.ndarray, b: int) -> np.ndarray:
    """a * b / 2**15 rounded, ties up, of int16 with b >= 0."""
    total = a * b
    total = total + np.where(total >= 0, 1 << 14, 1 - (1 << 14))
    return np.sign(total) * (np.abs(total) >> 15)


def _saturate_int16(x: np.ndarray) -> np.ndarray:
    return np.clip(x, INT16_MIN, INT16_MAX)


class FloatFunction(Lookup):
    """A function that LiteRT, too, tabulates, in float32."""

    def function(self, op: Operation, x: np.ndarray) -> np.ndarray:
        """The float32 results."""
        raise NotImplementedError

    def check(self, op: Operation) -> str | None:
        return check_float_table(op, lambda x: self.function(op, x))

    def table(self, op: Operation) -> np.ndarray:
        return float_table(op, lambda x: self.function(op, x))


@register
class Logistic(FloatFunction):
    """1 / (1 + e**-input)."""

    name = "LOGISTIC"
    limits = "The output's scale must be 1/256."

    def check(self, op: Operation) -> str | None:
        scale, _ = per_tensor(op.output)
        return None if scale == 1 / 256 else f"{op.output.name} has scale {scale:g}, supported for a sigmoid is 1/256"

    def function(self, op: Operation, x: np.ndarray) -> np.ndarray:
        return F32(1.0) / (F32(1.0) + expf(-x))

    def slope(self, op: Operation, x: np.ndarray) -> np.ndarray:
        return 1 / (2 + np.exp(x) + np.exp(-x))


@register
class Tanh(FloatFunction):
    """The hyperbolic tangent of input."""

    name = "TANH"

    def function(self, op: Operation, x: np.ndarray) -> np.ndarray:
        return tanhf(x)

    def slope(self, op: Operation, x: np.ndarray) -> np.ndarray:
        return 1 / np.cosh(x) ** 2


@register
class Elu(BetweenFloats):
    """input where it is positive, else e**input - 1."""

    name = "ELU"
    limits = "LiteRT's reference kernels lack it: it equals the only other, but `tinypeft test` cannot compare a model."

    def check(self, op: Operation) -> str | None:
        return None if op.attributes["float"] else check_float_table(op, lambda x: self.function(op, x))

    def int8_table(self, op: Operation) -> np.ndarray:
        return float_table(op, lambda x: self.function(op, x))

    def function(self, op: Operation, x: np.ndarray) -> np.ndarray:
        return np.where(x < 0, expm1f(np.minimum(x, F32(0.0))), x)

    def slope(self, op: Operation, x: np.ndarray) -> np.ndarray:
        return np.exp(np.minimum(x, 0.0))


@register
class Gelu(FloatFunction):
    """input times the normal distribution function of input; by tanh where the attribute `approximate` says so."""

    name = "GELU"

    def attributes(self, options: Any) -> dict[str, Any]:
        return {"approximate": bool(options.approximate)}

    def function(self, op: Operation, x: np.ndarray) -> np.ndarray:
        if not op.attributes["approximate"]:
            return F32(0.5) * x * erfcf(x * F32(-math.sqrt(0.5)))
        cubic = x + F32(0.044715) * x * x * x
        return F32(0.5) * x * (F32(1.0) + tanhf(F32(math.sqrt(2 / math.pi)) * cubic))

    def slope(self, op: Operation, x: np.ndarray) -> np.ndarray:
        if op.attributes["approximate"]:
            root = math.sqrt(2 / math.pi)
            t = np.tanh(root * (x + 0.044715 * x**3))
            return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * root * (1 + 3 * 0.044715 * x * x)
        erf = np.array([math.erf(value * math.sqrt(0.5)) for value in x])
        return 0.5 * (1 + erf) + x * np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
