"""The arithmetic that kernels share: NumPy against the C of the firmware, to the bit, and both against real numbers."""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from kernel_harness import compile_library

from tinypeft import arithmetic
from tinypeft.arithmetic import F32

INT32_MIN, INT32_MAX = -(1 << 31), (1 << 31) - 1
_TYPES = {"int32_t": np.int32, "int64_t": np.int64, "float": np.float32}

#: name -> (result, arguments, C expression of a[i], b[i], ...)
_FUNCTIONS = {
    "high_mul": ("int32_t", ("int32_t", "int32_t"), "tp_doubling_high_mul(a[i], b[i])"),
    "shift_right": ("int32_t", ("int32_t", "int32_t"), "tp_rounding_shift_right(a[i], b[i])"),
    "high_wide": ("int32_t", ("int32_t", "int32_t"), "tp_doubling_high_scale_wide(a[i], b[i])"),
    "high_narrow": ("int32_t", ("int32_t", "int32_t"), "tp_doubling_high_scale_narrow(a[i], b[i])"),
    "saturate_s8": ("int32_t", ("int32_t",), "tp_saturate_s8(a[i])"),
    "requantize": ("int32_t", ("int32_t", "int32_t", "int32_t"), "tp_requantize(a[i], b[i], c[i])"),
    "requantize_single": ("int32_t", ("int32_t", "int32_t", "int32_t"), "tp_requantize_single(a[i], b[i], c[i])"),
    "round_shift_s64": ("int64_t", ("int64_t", "int32_t"), "tp_round_shift_s64(a[i], b[i])"),
    "round_shift_s32": ("int32_t", ("int32_t", "int32_t"), "tp_round_shift_s32(a[i], b[i])"),
    "narrow_shift": ("int32_t", ("int64_t", "int32_t"), "tp_narrow_shift(a[i], b[i])"),
    "accumulator_shift": ("int32_t", ("int32_t", "int32_t"), "tp_accumulator_shift(a[i], b[i])"),
    "common_exponent": (
        "int32_t",
        ("int64_t", "int32_t", "int64_t", "int32_t", "int32_t"),
        "tp_common_exponent(a[i], b[i], c[i], d[i], e[i])",
    ),
    "exp2i": ("float", ("int32_t",), "tp_exp2i(a[i])"),
    "limit": ("float", ("float", "float"), "tp_limit_f32(a[i], b[i])"),
    "round_to_s32": ("int32_t", ("float",), "tp_round_to_s32(a[i])"),
    "float_exponent": ("int32_t", ("float",), "tp_float_exponent(a[i])"),
    "round_wide": ("int64_t", ("int64_t", "int32_t"), "tp_round_wide(a[i], b[i])"),
    "saturate": ("int32_t", ("int64_t",), "tp_saturate_s32(a[i])"),
    "fixed_point": ("int32_t", ("int32_t", "int32_t", "int32_t"), "tp_fixed_point(a[i], b[i], c[i])"),
    "float_multiplier": ("int32_t", ("float",), "(tp_float_multiplier(&a[i], &y[i]), y[i])"),
    "multiplier_exponent": ("int32_t", ("float",), "tp_float_multiplier(&a[i], &(int32_t){0})"),
    "exponential": ("int32_t", ("int64_t", "int32_t"), "tp_exponential(a[i], b[i])"),
    "log": ("int32_t", ("int64_t",), "tp_log_fixed((uint64_t)a[i])"),
    "sqrt": ("float", ("float",), "tp_sqrt_f32(a[i])"),
    "cos_pi": ("float", ("float",), "tp_cos_pi_f32(a[i])"),
}  # fmt: skip


@functools.cache
def _library() -> ctypes.CDLL:
    lines = ['#include "tinypeft/tp_arithmetic.h"']
    for name, (result, arguments, expression) in _FUNCTIONS.items():
        parameters = "".join(f", const {t} *{v}" for t, v in zip(arguments, "abcde", strict=False))
        head = f"void f_{name}(int32_t n, {result} *y{parameters})"
        lines += [f"{head};", f"{head} {{ for (int32_t i = 0; i < n; i++) {{ y[i] = {expression}; }} }}"]
    head = "uint32_t f_uniform(uint32_t state, float *y, int32_t n, float bound)"
    lines += [f"{head};", f"{head} {{ return tp_uniform_f32(state, y, n, bound); }}"]
    return compile_library("\n".join(lines) + "\n")


def _in_c(name: str, *arguments: Any) -> np.ndarray:
    """The C function of arrays, elementwise."""
    result, types, _ = _FUNCTIONS[name]
    arrays = np.broadcast_arrays(*[np.asarray(a) for a in arguments])
    typed = [np.ascontiguousarray(a, _TYPES[t]).reshape(-1) for a, t in zip(arrays, types, strict=True)]
    output = np.empty(typed[0].size, _TYPES[result])
    getattr(_library(), f"f_{name}")(len(output), *(ctypes.c_void_p(a.ctypes.data) for a in (output, *typed)))
    return output.reshape(arrays[0].shape)


def _assert_same(name: str, actual: Any, *arguments: Any) -> None:
    """Python's result equals C's to the bit."""
    expected = _in_c(name, *arguments)
    actual = np.asarray(actual)
    if expected.dtype.kind == "f":
        same = actual.astype(np.float32).view(np.int32) == expected.view(np.int32)
    else:
        same = actual.astype(np.int64) == expected
    assert same.all(), _differing(name, actual, expected, arguments)


def _differing(name: str, actual: np.ndarray, expected: np.ndarray, arguments: tuple[Any, ...]) -> str:
    arrays = np.broadcast_arrays(*[np.asarray(a) for a in arguments])
    at = np.flatnonzero(actual.reshape(-1) != expected.reshape(-1))[:3]
    cases = [
        f"{[a.reshape(-1)[i] for a in arrays]}: {actual.reshape(-1)[i]!r}, C {expected.reshape(-1)[i]!r}" for i in at
    ]
    return f"{name}: " + "; ".join(cases)


def _integers(rng: np.random.Generator, count: int, bits: int) -> np.ndarray:
    """Signed integers of up to `bits` bits, of every magnitude, and the extremes."""
    shift = rng.integers(0, bits, count)
    values = rng.integers(-(1 << 62), 1 << 62, count, dtype=np.int64) >> (63 - bits + shift)
    edges = [0, 1, -1, (1 << bits) - 1, -(1 << bits) + 1, 1 << (bits - 1), -(1 << (bits - 1))]
    return np.concatenate([values, np.array(edges, np.int64)])


def _each(function: Callable[..., Any], *arguments: np.ndarray) -> np.ndarray:
    """A function of Python numbers over arrays."""
    return np.array([function(*(a.item() for a in row)) for row in zip(*arguments, strict=True)])


def _grid(*axes: Any) -> list[np.ndarray]:
    """All combinations, flat."""
    return [a.reshape(-1) for a in np.meshgrid(*[np.asarray(axis) for axis in axes], indexing="ij")]


@pytest.mark.parametrize("name", ["requantize", "requantize_single"])
def test_requantize(name: str) -> None:
    rng = np.random.default_rng(1)
    function = arithmetic.requantize_double if name == "requantize" else arithmetic.requantize_single
    multipliers = np.concatenate([rng.integers(1 << 30, 1 << 31, 30), [0, 1 << 30, INT32_MAX]])
    acc, multiplier, shift = _grid(np.append(_integers(rng, 100, 31), INT32_MIN), multipliers, np.arange(-31, 31))
    result = function(acc, multiplier, shift)
    _assert_same(name, result, acc, multiplier, shift)
    assert (np.abs(result) <= INT32_MAX).all()
    exact = acc * (multiplier / 2.0**31) * 2.0 ** shift.astype(np.float64)
    inside = np.abs(acc * 2.0**shift) < arithmetic.REQUANTIZE_MAX
    assert np.abs(result - exact)[inside].max() <= 1.0, "a rounded result is at most one off"
    assert (np.sign(result) == np.sign(exact))[~inside].all(), "what does not fit saturates on its own side"


def test_fixed_point_primitives() -> None:
    rng = np.random.default_rng(2)
    a, b = _grid(np.append(_integers(rng, 300, 31), INT32_MIN), np.append(_integers(rng, 100, 31), INT32_MIN))
    _assert_same("high_mul", arithmetic.saturating_doubling_high_mul(a, b), a, b)
    positive = b >= 0
    a, b = a[positive], b[positive]
    expected = (a * b + (1 << 30)) >> 31
    _assert_same("high_wide", expected, a, b)
    _assert_same("high_narrow", expected, a, b)
    x = np.concatenate([np.arange(-600, 600), [INT32_MIN, INT32_MAX - 128]])
    _assert_same("saturate_s8", np.clip(x, -128, 127), x)
    a, shift = _grid(np.append(_integers(rng, 2000, 31), INT32_MIN), np.arange(32))
    _assert_same("shift_right", arithmetic.rounding_shift_right(a, shift), a, shift)


def test_round_half_up_shift() -> None:
    rng = np.random.default_rng(3)
    x, shift = _grid(_integers(rng, 3000, 31), [*range(-32, 64), -1000, 1000])
    result = arithmetic.round_half_up_shift(x, shift)
    _assert_same("round_shift_s64", result, x, shift)
    inside = (shift >= -30) & (shift <= 40)
    exact = np.floor(x[inside] / 2.0 ** shift[inside] + 0.5)
    np.testing.assert_array_equal(result[inside], exact)
    x, shift = _grid(_integers(rng, 3000, 62), np.arange(41))
    _assert_same("round_shift_s64", arithmetic.round_half_up_shift(x, shift), x, shift)
    x, shift = _grid(_integers(rng, 3000, 30), np.arange(31))
    _assert_same("round_shift_s32", arithmetic.round_half_up_shift(x, shift), x, shift)


def test_narrow_and_accumulator_shift() -> None:
    rng = np.random.default_rng(4)
    edges = np.concatenate([(1 << np.arange(16, 47)) - k for k in (-1, 0, 1)] + [32767 * (1 << np.arange(1, 30))])
    bounds = np.concatenate([np.abs(_integers(rng, 2000, 46)), edges, np.arange(32760, 33000)])
    bounds, limits = _grid(bounds, [127, arithmetic.BFP16_MAX])
    shifts = _each(arithmetic.narrow_shift, bounds, limits)
    _assert_same("narrow_shift", shifts, bounds, limits)
    assert (arithmetic.round_half_up_shift(bounds, shifts) <= limits).all()
    assert (arithmetic.round_half_up_shift(bounds, shifts - 1) > limits)[shifts > 0].all()

    peak, l1 = _grid(
        [0, 1, 2, 3, 16384, 32766, 32767], np.append(np.abs(_integers(rng, 500, 31)), [65532, 65533, 65534])
    )
    shifts = _each(arithmetic.accumulator_shift, peak, l1)
    _assert_same("accumulator_shift", shifts, peak, l1)
    reach = arithmetic.round_half_up_shift(peak, shifts) * l1
    assert (reach <= arithmetic.ACCUMULATOR_MAX).all()
    narrow = _each(arithmetic.narrow_shift, reach, np.full_like(reach, 127))
    assert (reach + (1 << narrow >> 1) <= INT32_MAX).all(), "the half of the rounding shift must fit as well"


def test_common_exponent() -> None:
    rng = np.random.default_rng(5)
    bounds = np.concatenate([[0, 1, 32767, arithmetic.ACCUMULATOR_MAX], np.abs(_integers(rng, 4, 31))[:6]])
    limits = [arithmetic.BFP16_MAX, arithmetic.ACCUMULATOR_MAX]
    a, ea, b, eb, limit = _grid(bounds, [-120, -31, -20, 5], bounds, [-130, -50, -21, -20, 40], limits)
    exponents = _each(arithmetic.common_exponent, a, ea, b, eb, limit)
    _assert_same("common_exponent", exponents, a, ea, b, eb, limit)
    total = arithmetic.round_half_up_shift(a, exponents - ea) + arithmetic.round_half_up_shift(b, exponents - eb)
    lone = np.where(a == 0, b, np.where(b == 0, a, -1)) >= 0  # a zero beside a value does not matter
    assert (total <= limit)[~lone].all()
    values = a * 2.0**ea + b * 2.0**eb
    error = np.abs(total * 2.0**exponents - values)
    assert (error <= 2.0**exponents)[~lone].all(), "each is rounded by at most half a step"
    large = ~lone & (values > 2.0**15 * 2.0 ** np.maximum(ea, eb))
    assert (total[large] >= 1 << 13).all(), "the mantissas use their range"
    zero = (a == 0) & (b == 0)
    assert (exponents[zero] == eb[zero]).all()


def test_exp2i() -> None:
    exponents = np.arange(-200, 200)
    powers = _each(arithmetic.exp2i, exponents)
    _assert_same("exp2i", powers, exponents)
    assert powers[200] == 1.0 and powers[200 - 127] == 0.0 and powers[-1] == 2.0**127


def _floats(rng: np.random.Generator, count: int) -> np.ndarray:
    """float32 of every exponent, subnormal too, infinities and not a number."""
    bits = rng.integers(0, 1 << 32, count, dtype=np.uint32)
    specials = [
        0.0,
        -0.0,
        np.inf,
        -np.inf,
        np.nan,
        0.5,
        -0.5,
        1.5,
        -1.5,
        2.0**30,
        -(2.0**30),
        2.0**31,
        -(2.0**31),
        3e38,
    ]
    return np.concatenate(
        [bits.view(np.float32), np.array(specials, np.float32), rng.normal(0, 1e4, count).astype(F32)]
    )


def test_float_to_integer() -> None:
    rng = np.random.default_rng(7)
    x = _floats(rng, 20000)
    ties = (np.arange(-70000, 70000) / 2).astype(np.float32)
    below = np.nextafter(ties, F32(-np.inf))
    with np.errstate(invalid="ignore"):
        for values in (x, ties, below):
            _assert_same("round_to_s32", arithmetic.round_to_int(values), values)
            for limit in (arithmetic.MASTER_LIMIT, F32(127.0)):
                limited = arithmetic.limit_float(values, limit)
                assert (np.abs(limited) <= limit).all()
                _assert_same("limit", limited, values, limit)
        assert arithmetic.round_to_int(F32(np.nan)) == 0
    np.testing.assert_array_equal(arithmetic.round_to_int(ties), np.floor(ties + 0.5))
    positive = np.abs(x[~np.isnan(x)])
    exponents = _each(arithmetic.float_exponent, positive)
    _assert_same("float_exponent", exponents, positive)
    normal = (positive >= 2.0**-126) & np.isfinite(positive)
    np.testing.assert_array_equal(exponents[normal], np.frexp(positive[normal])[1] - 1)


def test_round_wide_and_saturate() -> None:
    x, shift = _grid(_integers(np.random.default_rng(8), 500, 62), np.arange(64))
    result = arithmetic.round_half_up_wide(x, shift)
    _assert_same("round_wide", result, x, shift)
    exact = [(int(v) + (1 << int(s) >> 1)) >> int(s) for v, s in zip(x, shift, strict=True)]
    np.testing.assert_array_equal(result, exact)
    _assert_same("saturate", arithmetic.saturate_s32(x), x)


def test_fixed_point() -> None:
    rng = np.random.default_rng(9)
    multipliers = np.concatenate([rng.integers(1 << 30, 1 << 31, 20), [0, 1 << 30, INT32_MAX]])
    x, multiplier, shift = _grid(np.append(_integers(rng, 60, 31), INT32_MIN), multipliers, np.arange(-40, 100))
    result = arithmetic.fixed_point(x, multiplier, shift)
    _assert_same("fixed_point", result, x, multiplier, shift)
    exact = [Fraction(int(v) * int(m)) / Fraction(2) ** int(s) for v, m, s in zip(x, multiplier, shift, strict=True)]
    rounded = [min(max(math.floor(e + Fraction(1, 2)), INT32_MIN), INT32_MAX) for e in exact]
    np.testing.assert_array_equal(result, rounded)


def test_float_multiplier() -> None:
    scale = np.concatenate([np.exp(np.linspace(-87, 88, 4000)), [1.0, 0.5, 2.0**-126]]).astype(F32)
    multiplier, exponent = arithmetic.float_multiplier(scale)
    _assert_same("float_multiplier", multiplier, scale)
    _assert_same("multiplier_exponent", exponent, scale)
    assert ((multiplier >= 1 << 30) & (multiplier <= INT32_MAX)).all()
    np.testing.assert_array_equal(multiplier * 2.0**exponent, scale.astype(np.float64))
    multiplier, exponent = arithmetic.float_multiplier(F32(0.0))
    assert arithmetic.fixed_point(INT32_MAX, multiplier, -24 - exponent) == 0


def test_exponential() -> None:
    for exponent in range(-24, 1):
        x = np.concatenate([np.linspace(-40, 0, 4001) / 2.0**exponent, [-1, -2, -3, 0, -(1 << 32) + 1]])
        x = np.clip(np.floor(x), -(1 << 32) + 1, 0).astype(np.int64)
        result = arithmetic.exponential(x, exponent)
        _assert_same("exponential", result, x, exponent)
        exact = np.exp(x * 2.0**exponent) * 2.0**31
        assert np.abs(result - exact).max() <= 2.0**31 * 3e-7
        assert (np.abs(result - exact) <= 4e-7 * exact + 4).all(), "small values keep their relative precision"
        assert (result[x * 2.0**exponent <= -32] == 0).all() and result[x == 0].max() == INT32_MAX


def test_log() -> None:
    x = np.concatenate([2.0 ** np.linspace(31, 61.9, 4000), np.linspace(2.0**31, 2.0**33, 2000)]).astype(np.int64)
    result = _each(arithmetic.log_fixed, x)
    _assert_same("log", result, x)
    np.testing.assert_allclose(result * 2.0**-26, np.log(x * 2.0**-31), rtol=0, atol=3e-8)
    assert arithmetic.log_fixed(1 << 31) == 0


def test_sqrt() -> None:
    """Of every exponent, subnormal too, and next to squares, where rounding is decided."""
    rng = np.random.default_rng(3)
    random = rng.integers(0, 0xFF800001, 200000, dtype=np.uint32).view(F32)
    squares = (np.arange(4000, 4400, dtype=np.int64) ** 2).astype(F32)
    near = np.concatenate([np.nextafter(squares, F32(end)) for end in (0, np.inf)])
    edges = np.array([0, -0.0, 1e-45, 1.1754942e-38, 1.1754944e-38, 3.4028235e38, np.inf, -np.inf, np.nan, -1], F32)
    x = np.concatenate([random, squares, near, edges])
    result = arithmetic.sqrt_f32(x)
    _assert_same("sqrt", result, x)
    exact = [math.sqrt(v) if v > 0 else 0.0 for v in x.tolist()]  # 53 digits: enough for 24 to round as the exact root
    np.testing.assert_array_equal(result, np.array(exact, F32))
    np.testing.assert_array_equal(arithmetic.sqrt_f32(squares), np.arange(4000, 4400))


def test_cos_pi() -> None:
    x = np.concatenate([np.linspace(0, 1, 100001), np.logspace(-40, 0, 1000)]).astype(F32)
    result = arithmetic.cos_pi_f32(x)
    _assert_same("cos_pi", result, x)
    assert np.abs(result - np.cos(np.pi * x.astype(np.float64))).max() < 3e-7
    ends = arithmetic.cos_pi_f32(np.array([0, 0.5, 1], F32))
    np.testing.assert_allclose(ends, [1, 0, -1], atol=2e-7)
    assert ends[0] <= 1 and ends[2] >= -1


@pytest.mark.parametrize("state", [1, 2, 0x80000000, 0xFFFFFFFF, 2654435761])
def test_uniform(state: int) -> None:
    bound = F32(0.37)
    end, values = arithmetic.uniform_f32(state, 6000, bound)
    in_c = np.empty(6000, np.float32)
    function = _library().f_uniform
    function.restype = ctypes.c_uint32
    address = ctypes.c_void_p(in_c.ctypes.data)
    assert function(ctypes.c_uint32(state), address, 6000, ctypes.c_float(bound)) == end
    np.testing.assert_array_equal(values.view(np.int32), in_c.view(np.int32))
    assert -bound <= values.min() < -0.99 * bound and 0.99 * bound < values.max() < bound
    assert abs(values.mean()) < 0.03 * bound and abs(values.std() / bound - 3**-0.5) < 0.02


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-40, 10), min_size=1, max_size=20))
def test_channel_fold(logarithms: list[float]) -> None:
    scales = np.exp(np.array(logarithms)).astype(np.float32)
    multipliers, exponent = arithmetic.channel_fold(scales)
    assert multipliers.dtype == np.int16 and multipliers.min() >= 0 and multipliers.max() >= 1 << 14
    error = np.abs(multipliers * 2.0**exponent - scales.astype(np.float64))
    assert error.max() <= 2.0**exponent, "at most one step, where rounding up would leave int16"
    assert (error / scales)[scales.argmax()] <= 2.0**-14


@settings(max_examples=300, deadline=None)
@given(st.floats(1e-9, 1e9))
def test_quantize_multiplier(real: float) -> None:
    multiplier, shift = arithmetic.quantize_multiplier(real)
    assert 1 << 30 <= multiplier <= INT32_MAX
    assert abs(multiplier * 2.0 ** (shift - 31) / real - 1) <= 2.0**-31


@settings(max_examples=150, deadline=None)
@given(st.floats(2.0**-22, 4), st.integers(0, 2**32 - 1))
def test_exact_multiplier(real: float, seed: int) -> None:
    """Every accumulator next to a threshold rounds as the product in double does."""
    if seed % 3 == 0:  # next to a ratio whose multiples are ties
        real = float(np.round(real * 64) / 64 * (1 + (seed % 1000 - 500) * 2.0**-33)) or 0.5
    multiplier, shift = arithmetic.exact_multiplier(real)
    assert 1 << 30 <= multiplier <= INT32_MAX and -31 <= shift <= 30
    steps = np.arange(256) + 0.5
    acc = (np.floor(steps / real)[:, None] + np.arange(-2, 4)).reshape(-1)
    acc = np.concatenate([acc, -acc]).astype(np.int64)
    exact = np.sign(acc) * np.floor(np.abs(acc * real) + 0.5)
    inside = np.abs(exact) <= 255
    # a ratio such as 0.7: in double some of its multiples fall on ties and some do not, which no multiplier follows
    halves = [abs(int(a)) * Fraction(real) + Fraction(1, 2) for a in acc]
    assume(all(half.numerator // half.denominator == abs(e) for half, e in zip(halves, exact, strict=True)))
    np.testing.assert_array_equal(arithmetic.requantize_single(acc, multiplier, shift)[inside], exact[inside])
