"""The integer and float32 arithmetic that kernels share, in NumPy: the definition the C in firmware/ must equal.

Fixed point follows LiteRT's reference kernels; block floating point is ours (gradients).
"""

from __future__ import annotations

import functools
import math

import numpy as np

F32 = np.float32
INT32_MIN, INT32_MAX = -(1 << 31), (1 << 31) - 1

#: What masters and velocities are kept within; beyond it training has diverged.
MASTER_LIMIT = F32(2.0**20)

# Fixed point


def quantize_multiplier(real: float) -> tuple[int, int]:
    """The Q31 multiplier and the shift (positive: left) with real = multiplier * 2**(shift - 31)."""
    if real == 0.0:
        return 0, 0
    mantissa, shift = math.frexp(real)
    multiplier = int(math.floor(mantissa * (1 << 31) + 0.5))
    if multiplier == 1 << 31:
        multiplier, shift = multiplier // 2, shift + 1
    if shift < -31:
        return 0, 0
    return multiplier, shift


@functools.cache
def exact_multiplier(real: float) -> tuple[int, int]:
    """The multiplier and shift with which `requantize_single` rounds as LiteRT's fully connected does.

    That multiplies in double precision and rounds half away from zero. Near a tie the nearest Q31 multiplier may decide
    otherwise; of those that decide every int8 result alike, the nearest is taken. There is none for ratios like 0.7, of
    whose multiples double precision puts some on a tie and some beside it.
    """
    nearest, shift = quantize_multiplier(real)
    for candidate in (shift, shift - 1, shift + 1) if nearest else ():
        if not -31 <= candidate <= 30:
            continue
        low, high = 1 << 30, (1 << 31) - 1
        for step in range(256):  # results differ by up to 255 from the zero point
            first = max(int((step + 0.5) / real) - 2, 1)
            while first * real < step + 0.5:
                first += 1
            if first > 1 << 31:
                break
            threshold = (2 * step + 1) << (30 - candidate)
            low = max(low, -(-threshold // first))
            high = min(high, (threshold - 1) // (first - 1)) if first > 1 else high
        if low <= high:
            scaled = nearest << 1 >> (1 + candidate - shift)
            return min(max(scaled, low), high), candidate
    return nearest, shift


def quantize_multipliers(reals: np.ndarray, *, exact: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """`quantize_multiplier`, or `exact_multiplier`, of each element: (multipliers int32, shifts int8, at most 127)."""
    quantize = exact_multiplier if exact else quantize_multiplier
    pairs = [quantize(float(real)) for real in np.atleast_1d(reals)]
    return np.array([m for m, _ in pairs], np.int32), np.array([min(s, 127) for _, s in pairs], np.int8)


def rounding_shift_right(x: np.ndarray, shift: np.ndarray | int) -> np.ndarray:
    """x / 2**shift rounded half away from zero (gemmlowp's RoundingDivideByPOT)."""
    x, shift = np.asarray(x, np.int64), np.asarray(shift, np.int64)
    mask = (np.int64(1) << shift) - 1
    remainder = x & mask
    threshold = (mask >> 1) + (x < 0)
    return (x >> shift) + (remainder > threshold)


def saturating_doubling_high_mul(a: np.ndarray | int, b: np.ndarray | int) -> np.ndarray:
    """High half of 2*a*b, rounded (gemmlowp's SaturatingRoundingDoublingHighMul)."""
    product = np.asarray(a, np.int64) * np.asarray(b, np.int64)
    nudge = np.where(product >= 0, 1 << 30, 1 - (1 << 30))
    total = product + nudge
    high = np.where(total >= 0, total >> 31, -((-total) >> 31))
    both_min = (np.asarray(a) == -(1 << 31)) & (np.asarray(b) == -(1 << 31))
    return np.where(both_min, (1 << 31) - 1, high)


#: Where acc * 2**shift would leave int32, it saturates here: zero points can still be added. LiteRT's overflows.
REQUANTIZE_MAX = 0x7FFFFF00


def limit_for_shift(acc: np.ndarray, shift: np.ndarray | int) -> np.ndarray:
    """acc, limited so that acc * 2**shift stays inside int32; as it is where the shift is to the right."""
    acc, shift = np.asarray(acc, np.int64), np.asarray(shift, np.int64)
    limit = REQUANTIZE_MAX >> np.maximum(shift, 0)
    return np.where(shift > 0, np.clip(acc, -limit, limit), acc)


def requantize_double(acc: np.ndarray, multiplier: np.ndarray | int, shift: np.ndarray | int) -> np.ndarray:
    """acc * multiplier * 2**(shift-31), rounded twice, as most of LiteRT's reference kernels do.

    -31 <= shift <= 31.
    """
    shift = np.asarray(shift, np.int64)
    left, right = np.maximum(shift, 0), np.maximum(-shift, 0)
    shifted = limit_for_shift(acc, shift) << left
    return rounding_shift_right(saturating_doubling_high_mul(shifted, multiplier), right)


def requantize_single(acc: np.ndarray, multiplier: np.ndarray | int, shift: np.ndarray | int) -> np.ndarray:
    """acc * multiplier * 2**(shift-31), rounded once, half away from zero, as LiteRT's fully connected does.

    -31 <= shift <= 30.
    """
    total = 31 - np.asarray(shift, np.int64)
    product = limit_for_shift(acc, shift) * np.asarray(multiplier, np.int64)
    return (product + (np.int64(1) << (total - 1)) - (product < 0)) >> total


def round_half_up_shift(x: np.ndarray | int, shift: np.ndarray | int) -> np.ndarray:
    """floor(x / 2**shift + 1/2); a negative shift goes left. Shifts are limited to [-30, 40]."""
    x, shift = np.asarray(x, np.int64), np.clip(np.asarray(shift, np.int64), -30, 40)
    right, left = np.maximum(shift, 0), np.maximum(-shift, 0)
    half = np.where(right > 0, np.int64(1) << np.maximum(right - 1, 0), 0)
    return ((x + half) >> right) << left


def round_half_up_wide(x: np.ndarray | int, shift: np.ndarray | int) -> np.ndarray:
    """floor(x / 2**shift + 1/2) of |x| <= 2**62 and 0 <= shift <= 63."""
    x, shift = np.asarray(x, np.int64), np.asarray(shift, np.int64)
    half = np.where(shift > 0, np.int64(1) << np.maximum(shift - 1, 0), 0)
    return (x + half) >> shift


def saturate_s32(x: np.ndarray | int) -> np.ndarray:
    """x limited to int32."""
    return np.clip(x, INT32_MIN, INT32_MAX).astype(np.int32)


def fixed_point(x: np.ndarray | int, multiplier: np.ndarray | int, shift: np.ndarray | int) -> np.ndarray:
    """x * multiplier / 2**shift as int32, rounded once, half up, and saturated.

    x is an int32, the multiplier 0 or from 2**30 to 2**31 - 1, so that a shift to the left always saturates.
    """
    shift = np.clip(np.asarray(shift, np.int64), -1, 63)
    product = np.asarray(x, np.int64) * np.asarray(multiplier, np.int64) << np.where(shift < 0, 1, 0)
    return saturate_s32(round_half_up_wide(product, np.maximum(shift, 0)))


def float_multiplier(scale: np.ndarray | np.floating) -> tuple[np.ndarray, np.ndarray]:
    """(multiplier, exponent), int64, with multiplier * 2**exponent the positive normal float32 `scale`, from its bits.

    The multiplier is at least 2**30. The exponent of 0 is that of 2**-127, small enough for any product to become 0.
    """
    bits = np.asarray(scale, np.float32).view(np.uint32).astype(np.int64)
    return (bits & 0x7FFFFF | 0x800000) << 7, (bits >> 23 & 0xFF) - 157


#: e**-(1/4), e**-(1/2), e**-1 ... e**-16 as Q0.31
_EXP_POWERS = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)


def exp_on_negative_values(a: np.ndarray) -> np.ndarray:
    """e**a of Q5.26 values in (-32, 0], as Q0.31: a Taylor series on the last quarter, times stored powers."""
    mul = saturating_doubling_high_mul
    quarter = 1 << 24
    last = (a & (quarter - 1)) - quarter
    x = (last << 5) + (1 << 28)  # around -1/8
    x2 = mul(x, x)
    x3, x4 = mul(x2, x), mul(x2, x2)
    series = rounding_shift_right(mul(rounding_shift_right(x4, 2) + x3, 715827883) + x2, 1)
    result = 1895147668 + mul(x + series, 1895147668)
    for i, power in enumerate(_EXP_POWERS):
        result = np.where((last - a) & (quarter << i), mul(result, power), result)
    return np.where(a == 0, INT32_MAX, result)


def exponential(x: np.ndarray, exponent: int) -> np.ndarray:
    """e**(x * 2**exponent) as Q0.31, of -2**32 < x <= 0 and -24 <= exponent <= 0; 0 from e**-32 on."""
    scaled = np.asarray(x, np.int64) << (26 + exponent)
    counted = scaled > INT32_MIN
    return np.where(counted, exp_on_negative_values(np.where(counted, scaled, 0)), 0)


_LN2 = 1488522236  # as Q0.31
_SQRT2 = 3037000500  # as Q1.31
#: 1/3, 1/5, 1/7, 1/9 as Q0.31
_ATANH_COEFFICIENTS = (715827883, 429496730, 306783378, 238609294)


def log_fixed(x: int) -> int:
    """ln(x / 2**31) in units of 2**-26, of 2**31 <= x < 2**62: 2*atanh((m-1)/(m+1)) of m in [sqrt(1/2), sqrt(2)].

    Error below 3e-8.
    """
    power = x.bit_length() - 32
    m, one = x >> power, 1 << 31
    if m > _SQRT2:
        power, one = power + 1, 1 << 32
    f = (abs(m - one) << 31) // (m + one)
    f = f if m >= one else -f
    square = saturating_doubling_high_mul(f, f)
    p = np.zeros_like(square)
    for coefficient in reversed(_ATANH_COEFFICIENTS):
        p = saturating_doubling_high_mul(square, p + coefficient)
    series = f + int(saturating_doubling_high_mul(f, p))
    return int(round_half_up_shift(2 * series + power * _LN2, 5))


# Block floating point

BFP16_MAX = 32767
INT32_MAX = 0x7FFFFFFF
#: Largest bound of an int32 accumulator that still leaves room for the half of a rounding shift of up to 25 bits.
ACCUMULATOR_MAX = 0x7F000000


def narrow_shift(bound: int, limit: int = BFP16_MAX) -> int:
    """The smallest shift >= 0 with round_half_up(bound >> shift) <= limit."""
    shift = 0
    while int(round_half_up_shift(bound, shift)) > limit:
        shift += 1
    return shift


def accumulator_shift(peak: int, l1: int) -> int:
    """The smallest shift >= 0 of mantissas up to `peak` that keeps their product with an L1 norm inside int32."""
    shift = 0
    while int(round_half_up_shift(peak, shift)) * l1 > ACCUMULATOR_MAX:
        shift += 1
    return shift


def common_exponent(bound_a: int, exponent_a: int, bound_b: int, exponent_b: int, limit: int = BFP16_MAX) -> int:
    """The exponent at which |a + b|, of magnitudes up to the bounds, is at most `limit` after rounding each."""
    if bound_a == 0:
        exponent_a = exponent_b
    if bound_b == 0:
        exponent_b = exponent_a
    low, high = min(exponent_a, exponent_b), max(exponent_a, exponent_b)
    exponent = max(low, high - 30)
    while (
        int(round_half_up_shift(bound_a, exponent - exponent_a))
        + int(round_half_up_shift(bound_b, exponent - exponent_b))
        > limit
    ):
        exponent += 1
    return exponent


def channel_fold(scales: np.ndarray) -> tuple[np.ndarray, int]:
    """int16 multipliers and an exponent with scale[c] ~ multiplier[c] * 2**exponent, the largest using all 15 bits."""
    scales = np.asarray(scales, np.float64)
    _, exponent = math.frexp(float(scales.max()))
    multipliers = np.minimum(np.floor(np.ldexp(scales, 15 - exponent) + 0.5), BFP16_MAX)
    return multipliers.astype(np.int16), exponent - 15


# float32


def exp2i(exponent: int) -> np.float32:
    """2**exponent as float32; below the normal range 0, above it the largest power."""
    if exponent < -126:
        return F32(0.0)
    return F32(2.0 ** min(exponent, 127))


def limit_float(x: np.ndarray, limit: np.float32 = MASTER_LIMIT) -> np.ndarray:
    """float32 values limited to [-limit, limit]; not a number becomes 0."""
    x = np.asarray(x, np.float32)
    return np.where(np.isnan(x), F32(0.0), np.clip(x, -limit, limit))


def round_to_int(x: np.ndarray) -> np.ndarray:
    """floor(x + 0.5) as int32: one float32 addition, then floor. Saturates at +-2**30; not a number gives 0."""
    shifted = limit_float(x, F32(2.0**30)) + F32(0.5)
    return np.floor(shifted).astype(np.int32)


def float_exponent(x: float | np.float32) -> int:
    """The exponent field: e with 2**e <= x < 2**(e+1) of a positive normal float32, -127 below, 128 for infinity."""
    return int(np.float32(x).view(np.uint32) >> 23 & 0xFF) - 127


def sqrt_f32(x: np.ndarray) -> np.ndarray:
    """The square root, correctly rounded; 0 for what is not above 0."""
    x = np.asarray(x, np.float32)
    return np.sqrt(np.where(x > 0, x, F32(0.0)))


_SIN_PI_COEFFICIENTS = [F32(c) for c in (-7.3704309e-3, 8.2145887e-2, -5.9926453e-1, 2.5501640, -5.1677128, 3.1415927)]


def cos_pi_f32(x: np.ndarray) -> np.ndarray:
    """cos(pi * x) for 0 <= x <= 1 in float32: sin(pi * (1/2 - x)) by its series to the 11th power, limited to +-1."""
    r = F32(0.5) - np.asarray(x, np.float32)
    square = r * r
    p = np.full_like(r, _SIN_PI_COEFFICIENTS[0])
    for coefficient in _SIN_PI_COEFFICIENTS[1:]:
        p = p * square + coefficient
    return limit_float(p * r, F32(1.0))


# 4-bit integers


def pack_int4(values: np.ndarray) -> np.ndarray:
    """Values in [-8, 7] as uint8, two a byte, the first in the low nibble."""
    nibbles = np.asarray(values).reshape(-1).astype(np.uint8) & 0xF
    nibbles = np.append(nibbles, np.zeros(len(nibbles) % 2, np.uint8))
    return nibbles[::2] | (nibbles[1::2] << 4)


def unpack_int4(packed: np.ndarray, count: int) -> np.ndarray:
    """The first `count` values of what `pack_int4` gave, int8."""
    nibbles = np.stack([packed & 0xF, packed >> 4], axis=1).reshape(-1)[:count].astype(np.int8)
    return np.where(nibbles > 7, nibbles - 16, nibbles).astype(np.int8)


# Pseudo-random numbers


def xorshift32(state: int) -> int:
    """The state behind `state`, neither of which is 0."""
    state ^= (state << 13) & 0xFFFFFFFF
    state ^= state >> 17
    return state ^ (state << 5) & 0xFFFFFFFF


def uniform_f32(state: int, count: int, bound: np.float32) -> tuple[int, np.ndarray]:
    """`count` float32 values in [-bound, bound) from xorshift32; returns the next state too."""
    values = np.empty(count, np.float32)
    for i in range(count):
        state = xorshift32(state)
        values[i] = F32((state >> 8) - (1 << 23)) * F32(2.0**-23) * bound
    return state, values


def normal_f32(state: int, count: int, deviation: np.float32) -> tuple[int, np.ndarray]:
    """`count` float32 values, nearly normal around 0: sums of 12 uniforms of 24 bits, whose variance is 12 / 12.

    None is beyond 6 deviations. Returns the next state too.
    """
    values = np.empty(count, np.float32)
    for i in range(count):
        total = 0
        for _ in range(12):
            state = xorshift32(state)
            total += state >> 8
        values[i] = F32(total - 6 * ((1 << 24) - 1)) * F32(2.0**-24) * deviation
    return state, values
