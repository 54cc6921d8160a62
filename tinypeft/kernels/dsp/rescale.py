"""Requantisation rounded twice, in two instructions where a layer's outputs begin at their zero point, else in five.

With y = acc * multiplier / 2**31 and a shift of r bits to the right, the definition is floor(y + 1/2), shifted right
by r and rounded half away from zero. Of results that are not negative this is floor((y + 1/2 + 2**(r-1)) / 2**r), as
nested floors are one. So accumulators that hold acc * 2**(1 + d) give every channel the same final shift r + d: `smmla`
adds the high half of the product to a constant, `ssat` shifts and saturates. Negative results, of which ties go the
other way, are clamped then.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinypeft.arithmetic import requantize_double
from tinypeft.ir import Operation
from tinypeft.ops.activation import INT8_MAX, INT8_MIN, output_range
from tinypeft.ops.weighted import layer_bias, multipliers, zero_point_bias

WORD_LIMIT, WEIGHT_LIMIT = 1 << 31, 1 << 15


@dataclass(frozen=True)
class Rescale:
    """How accumulators of a layer become int8, and what its channels need for that.

    scale       (C,) by which weights and biases are multiplied beforehand, a power of two
    multiplier  (C,) the Q31 multipliers
    addend      (C,) what `smmla` adds where `shift` is not 0, else the shift to the right
    shift       the final shift of all channels; 0: each has its own, rounded by the carry
    """

    scale: np.ndarray
    multiplier: np.ndarray
    addend: np.ndarray
    shift: int
    zero_point: int
    low: int
    high: int

    @property
    def instructions(self) -> int:
        """Of one result; each is a cycle."""
        clamps = (self.low > INT8_MIN) + (self.high < INT8_MAX)
        return (2 if self.shift else 5) + 3 * clamps

    @property
    def key(self) -> str:
        """A part of the name of a routine that holds this code."""
        clamp = "" if (self.low, self.high) == (INT8_MIN, INT8_MAX) else f"_{self.low}_{self.high}"
        zero_point = "" if self.shift else f"_{self.zero_point}"
        return f"q{self.shift}{zero_point}{clamp}".replace("-", "m")

    def code(self, acc: str, multiplier: str, addend: str) -> list[str]:
        """Assembly that requantises the register `acc` in place."""
        if self.shift:
            lines = [f"smmla {acc}, {acc}, {multiplier}, {addend}", f"ssat {acc}, #8, {acc}, asr #{self.shift}"]
        else:
            carry = f"sbc {acc}, {acc}, #{-self.zero_point - 1}"
            if self.zero_point >= 0:
                carry = f"adc {acc}, {acc}, #{self.zero_point}"
            lines = [f"smmulr {acc}, {acc}, {multiplier}", f"add {acc}, {acc}, {acc}, asr #31"]
            lines += [f"asrs {acc}, {acc}, {addend}", carry, f"ssat {acc}, #8, {acc}"]
        for limit, default, condition in ((self.low, INT8_MIN, "lt"), (self.high, INT8_MAX, "gt")):
            if limit != default:
                lines += [f"cmp {acc}, #{limit}", f"it {condition}", f"mov{condition} {acc}, #{limit}"]
        return lines


def make_rescale(
    multiplier: np.ndarray,
    shift: np.ndarray,
    reach: tuple[np.ndarray, np.ndarray],
    weight: np.ndarray,
    zero_point: int,
    limits: tuple[int, int],
) -> Rescale | str:
    """The rescaling of channels with accumulators from reach[0] to reach[1] and |weights| up to `weight`, (C,) each.

    `shift` is positive to the left, as in tinypeft.arithmetic. A string says why there is none.
    """
    low, high = limits
    multiplier, right, weight = multiplier.astype(np.int64), -shift.astype(np.int64), weight.astype(np.int64)
    least, most = (np.clip(requantize_double(acc, multiplier, shift) + zero_point, low, high) for acc in reach)
    bound = np.maximum(np.abs(reach[0]), np.abs(reach[1])).astype(np.int64)
    constant = least == most
    common = _common_shift(right, constant, bound, weight) if low >= zero_point else None
    if common is not None:
        scale, half, final = common
        addend = (np.where(constant, least, zero_point) << final) + half
        return Rescale(scale, np.where(constant, 0, multiplier), addend, final, zero_point, low, high)
    nothing = constant & (least == np.clip(zero_point, low, high))
    multiplier, right, bound = (np.where(nothing, x, y) for x, y in ((0, multiplier), (1, right), (0, bound)))
    if int(right.min()) < 1:
        return "of a channel, input scale * filter scale is more than half of the output scale"
    if int(bound.max()) >= WORD_LIMIT // 2:
        return f"accumulators can reach {int(bound.max())}, which is more than 2**30"
    return Rescale(np.full(len(right), 2), multiplier, right, 0, zero_point, low, high)


def layer_rescale(op: Operation) -> Rescale | str:
    """The rescaling of a convolution or depthwise convolution whose constants the compiler knows."""
    weights, bias = channel_weights(op), layer_bias(op)
    zero_point = op.inputs["input"].zero_point
    above, below = np.maximum(weights, 0).sum(axis=1), np.minimum(weights, 0).sum(axis=1)
    first, last = INT8_MIN - zero_point, INT8_MAX - zero_point  # padding is the zero point, between them
    reach = bias + first * above + last * below, bias + last * above + first * below
    peak = np.abs(weights).max(axis=1)
    return make_rescale(*multipliers(op), reach, peak, op.output.zero_point, output_range(op))


def channel_weights(op: Operation) -> np.ndarray:
    """int64 (Cout, taps): the filter of a convolution or depthwise convolution by output channel."""
    data = op.inputs["filter"].data
    assert data is not None
    weights = data.astype(np.int64)
    if op.kind == "DEPTHWISE_CONV_2D":
        return weights.reshape(-1, weights.shape[-1]).T
    return weights.reshape(len(weights), -1)


def folded_bias(op: Operation) -> np.ndarray:
    """int64 (Cout,): the bias with what the input's zero point adds to every accumulator."""
    if op.kind == "DEPTHWISE_CONV_2D":
        return layer_bias(op) - op.inputs["input"].zero_point * channel_weights(op).sum(axis=1)
    return layer_bias(op) + zero_point_bias(op)


def _common_shift(
    right: np.ndarray, constant: np.ndarray, bound: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray, int] | None:
    """(scale, what rounds, shift) with one shift for all channels; None where a scaled weight or sum is too large.

    The weights of channels that are `constant` do not count: their multiplier is 0.
    """
    right = np.where(constant, int(right[~constant].max(initial=1)), right)
    final = max(int(right.max()), 0) + 1
    beyond = final - right
    if final > 22 or int(beyond.max()) > 14:
        return None
    scale = np.where(constant, 1, np.int64(2) << beyond)
    if int((weight * scale).max()) >= WEIGHT_LIMIT or int((bound * scale).max()) >= WORD_LIMIT:
        return None
    first = np.where(right > 0, np.int64(1) << (beyond - 1), 0)
    return scale, first + (np.int64(1) << (final - 1)), final
