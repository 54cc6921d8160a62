"""How accumulators become int8 in a few instructions, where that is proved to give the same bits for all inputs.

    ranges = accumulator_range(op)
    constants = requantization(op, ranges)         -> Stepped or Rounded, or why there is none

`Stepped`: an output is a step function of its accumulator, with at most 255 steps. A multiplier and an offset are
searched with which ((acc << shift) + offset) * multiplier, cut off below its high bits, has the same steps wherever the
accumulator can be. Rounding, zero point and a clamp at int8's ends are all in the offset.
`Rounded`: the roundings as they are, where there is no such pair; layers that clamp all negative values away leave out
what makes those round away from zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinypeft import arithmetic
from tinypeft.ir import Operation
from tinypeft.ops.activation import output_range
from tinypeft.ops.weighted import layer_bias, multipliers

#: (low_shift, high_shift) in the order in which they are tried: layers with the same ones share code.
_SHIFTS = ((11, 13), (10, 14), (12, 12), (9, 15), (13, 11), (8, 16), (14, 10), (7, 16), (6, 16))
_PLAIN_SHIFTS = tuple((shift, 16) for shift in (11, 10, 12, 9, 8, 7, 6, 5, 4, 13, 14))
#: How far from the nearest offset a search goes.
_REACH = 6
_INT32 = 1 << 31


@dataclass(frozen=True)
class AccumulatorRange:
    """int64 (Cout,): the least and the largest accumulator of each channel over all int8 inputs."""

    low: np.ndarray
    high: np.ndarray

    @property
    def magnitude(self) -> np.ndarray:
        """The largest |accumulator| of each channel."""
        return np.maximum(np.abs(self.low), np.abs(self.high))


@dataclass(frozen=True)
class Stepped:
    """int64 (Cout,) each, which give the output + 128 in front of the clamp to 0..255.

    Of low channels it is ((acc << low_shift) + offset) * multiplier >> 48, of high ones
    ((acc << 8) + offset) * multiplier >> (32 + high_shift); of `plain` ones all are as low channels.
    """

    multiplier: np.ndarray
    offset: np.ndarray
    low_shift: int
    high_shift: int
    plain: bool


@dataclass(frozen=True)
class Rounded:
    """int64 (Cout,) each: multiplier, and shift to the right, at least 1, behind the high word of the product.

    once  the high word is cut off in front of that shift; else the product is doubled and its high word rounded
    away  whether negative values are rounded away from zero: needless with a clamp at the zero point, or without ties
    wide  whether values may leave int16 in front of the clamp
    """

    multiplier: np.ndarray
    shift: np.ndarray
    once: bool
    away: bool
    wide: bool
    plain: bool


def accumulator_range(op: Operation) -> AccumulatorRange:
    """Of a convolution without groups or a dense layer; padding counts as the zero point, which int8 holds."""
    filters = op.inputs["filter"].data
    assert filters is not None
    weights = filters.astype(np.int64).reshape(len(filters), -1)
    zero_point = op.inputs["input"].zero_point
    least, most = -128 - zero_point, 127 - zero_point
    positive, negative = np.maximum(weights, 0).sum(1), np.minimum(weights, 0).sum(1)
    bias = layer_bias(op)
    return AccumulatorRange(positive * least + negative * most + bias, positive * most + negative * least + bias)


def is_high(channels: int) -> np.ndarray:
    """bool (channels,): of four channels the first two are in the high bytes of packed weights."""
    return np.arange(channels) % 4 < 2


def constant_channels(op: Operation, ranges: AccumulatorRange) -> np.ndarray:
    """bool (Cout,): whether the output is the same for all inputs."""
    return outputs_of(op, ranges.low[:, None])[:, 0] == outputs_of(op, ranges.high[:, None])[:, 0]


def requantization(op: Operation, ranges: AccumulatorRange, plain: bool = False) -> Stepped | Rounded | str:
    """The cheapest form that is exact; accumulators of constant channels are taken to be 0.

    plain  every channel has an accumulator of its own, instead of two being packed
    """
    found = _stepped(op, ranges, plain)
    return _rounded(op, ranges, plain) if found is None else found


def outputs_of(op: Operation, acc: np.ndarray) -> np.ndarray:
    """The int8 outputs, as int64, of accumulators (Cout, n)."""
    multiplier, shift = multipliers(op)
    single = op.kind == "FULLY_CONNECTED"
    rounding = arithmetic.requantize_single if single else arithmetic.requantize_double
    low, high = output_range(op)
    return np.clip(rounding(acc, multiplier[:, None], shift[:, None]) + op.output.zero_point, low, high)


def _thresholds(op: Operation, ranges: AccumulatorRange, levels: np.ndarray) -> np.ndarray:
    """int64 (Cout, levels): the least accumulator with which a channel's output is at least a level, by bisection.

    One above the range where none is, and the lowest of the range where all are.
    """
    below = np.broadcast_to(ranges.low[:, None] - 1, (len(ranges.low), len(levels))).copy()
    at_least = np.broadcast_to(ranges.high[:, None] + 1, below.shape).copy()
    while (at_least - below > 1).any():
        middle = (below + at_least) >> 1
        reached = outputs_of(op, middle) >= levels
        at_least, below = np.where(reached, middle, at_least), np.where(reached, below, middle)
    return at_least


def _stepped(op: Operation, ranges: AccumulatorRange, plain: bool) -> Stepped | None:
    low, high = output_range(op)
    if low > high:
        return None
    levels = np.arange(low + 1, high + 1)
    constant = constant_channels(op, ranges)
    thresholds = _thresholds(op, ranges, levels)
    values = outputs_of(op, ranges.low[:, None])[:, 0]
    multiplier, shift = multipliers(op)
    scale = multiplier / 2.0**31 * 2.0 ** shift.astype(np.float64)
    largest = scale[~constant].max(initial=0.0)
    for low_shift, high_shift in _PLAIN_SHIFTS if plain else _SHIFTS:
        packed = (8, 32 + high_shift)
        places = [packed if upper and not plain else (low_shift, 48) for upper in is_high(len(values))]
        if any(largest * 2.0 ** (total - left) >= _INT32 for left, total in set(places)):
            continue
        found_multipliers, found_offsets = [], []
        for c, (left, total) in enumerate(places):
            if constant[c]:
                pair: tuple[int, int] | None = (int(values[c]) + 128 << (total - 28), 1 << 28)
                pair = pair if pair is not None and pair[0] < _INT32 else None
            else:
                pair = _pair(thresholds[c], levels, int(ranges.low[c]), int(ranges.high[c]), scale[c], left, total)
            if pair is None:
                break
            found_multipliers.append(pair[0])
            found_offsets.append(pair[1])
        if len(found_offsets) == len(values):
            return Stepped(np.array(found_multipliers), np.array(found_offsets), low_shift, high_shift, plain)
    return None


def _pair(
    thresholds: np.ndarray, levels: np.ndarray, least: int, most: int, scale: float, left: int, total: int
) -> tuple[int, int] | None:
    """(multiplier, offset): ((acc << left) + offset) * multiplier >> total reaches level + 128 from its threshold on.

    For all accumulators from `least` to `most`, without overflow; None where none is found.
    """
    inside = (thresholds > least) & (thresholds <= most)
    first, wanted = thresholds[inside] << left, (levels[inside] + 128).astype(np.int64) << total
    before = first - (1 << left)
    # Where the lowest accumulator is above a level already, or the highest below one: no step may lie inside.
    always, never = wanted_of(levels[thresholds <= least], total), wanted_of(levels[thresholds > most], total)
    points = np.concatenate([first, np.full(len(always), least << left)])
    point_levels = np.concatenate([wanted, always])
    limits = np.concatenate([before, np.full(len(never), most << left)])
    limit_levels = np.concatenate([wanted, never])
    if not len(point_levels):
        return 0, 0  # no level is ever reached
    # The middle between the least and the most that the steps themselves allow at the nominal multiplier.
    nominal = scale * 2.0 ** (total - left)
    lowest = float((point_levels / nominal - points).max())
    highest = float((limit_levels / nominal - limits).min(initial=lowest + 2.0**left))
    middle = round((lowest + highest) / 2)
    for offset in sorted(range(middle - _REACH, middle + _REACH + 1), key=lambda o: abs(o - middle)):
        if not -_INT32 <= (least << left) + offset <= (most << left) + offset < _INT32:
            continue
        multiplier = _multiplier(points + offset, point_levels, limits + offset, limit_levels)
        if multiplier is None:
            continue
        ends = [((acc << left) + offset) * multiplier >> total for acc in (least, most)]
        if all(-(1 << 15) <= end < 1 << 15 for end in ends):
            return multiplier, offset
    return None


def wanted_of(levels: np.ndarray, total: int) -> np.ndarray:
    """int64: the product from which on an output + 128 is at least each level + 128."""
    return (levels + 128).astype(np.int64) << total


def _multiplier(points: np.ndarray, reached: np.ndarray, limits: np.ndarray, missed: np.ndarray) -> int | None:
    """The least m with points * m >= reached and limits * m < missed, elementwise, 0 < m < 2**31; None without one."""
    if (points[reached > 0] <= 0).any() or (limits[missed <= 0] >= 0).any():
        return None
    least, most = 1, _INT32 - 1
    least = max(least, int((-(-reached // np.maximum(points, 1)))[points > 0].max(initial=1)))
    if (points < 0).any():  # reached <= 0: m <= reached / points
        most = min(most, int((-reached[points < 0] // -points[points < 0]).min()))
    if (limits > 0).any():
        most = min(most, int(((missed - 1)[limits > 0] // limits[limits > 0]).min()))
    if (limits < 0).any():  # m > missed / limits where missed <= 0
        negative = (limits < 0) & (missed <= 0)
        least = max(least, int((-missed[negative] // -limits[negative] + 1).max(initial=1)))
    return least if least <= most else None


def _rounded(op: Operation, ranges: AccumulatorRange, plain: bool) -> Rounded | str:
    multiplier, shift = (values.astype(np.int64) for values in multipliers(op))
    once = op.kind == "FULLY_CONNECTED"
    least = 2 if once else 1
    if shift.max() > -least:
        return f"input scale * filter scale / output scale is 1/{1 << least} or more"
    if ranges.magnitude.max() >= 1 << 30:
        return f"its accumulators can reach {ranges.magnitude.max()}, the limit is 2**30"
    negative = output_range(op)[0] < op.output.zero_point
    if once and negative and _has_ties(multiplier, shift, ranges):
        return "a negative accumulator may be half-way between two outputs"
    reach = (ranges.magnitude * (multiplier / 2.0**31 * 2.0 ** shift.astype(np.float64))).max()
    if reach >= 1 << 30:
        return "its outputs would lie beyond int32 in front of the clamp"
    return Rounded(
        multiplier, -shift - (1 if once else 0), once, negative and not once, bool(reach + 512 >= 1 << 15), plain
    )


def _has_ties(multiplier: np.ndarray, shift: np.ndarray, ranges: AccumulatorRange) -> bool:
    """Whether an accumulator * multiplier may be an odd multiple of half an output's step."""
    powers = np.where(multiplier > 0, multiplier & -multiplier, 1)  # of two, in the multiplier
    return bool(((30 - shift - np.log2(powers)) <= np.log2(ranges.magnitude + 1)).any())
