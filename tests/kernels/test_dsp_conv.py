"""Convolutions and dense layers of the `dsp` backend: the bits of `evaluate`, and estimates near the counts."""

from __future__ import annotations

import os

import numpy as np
import pytest
from channel_cases import adapt, bias_masters
from dsp_cases import M4, kernels_of, random_cases
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_cases import MASTER_STYLES
from on_target import Case, check_on_target, need_target
from random_operations import conv_2d, dense, random_operation, random_values, random_window

from tinypeft.adapters import ADAPTERS
from tinypeft.ir import Operation, Tensor
from tinypeft.kernels import BACKENDS
from tinypeft.kernels.dsp import conv
from tinypeft.kernels.dsp import dense as dense_kernels
from tinypeft.kernels.dsp.packing import pack_layer
from tinypeft.kernels.dsp.requantize import (
    Rounded,
    Stepped,
    accumulator_range,
    constant_channels,
    is_high,
    requantization,
)
from tinypeft.ops.activation import output_range
from tinypeft.ops.weighted import multipliers
from tinypeft.ops.window import Window

KINDS = ("CONV_2D", "FULLY_CONNECTED")


@pytest.mark.parametrize("kind", KINDS)
def test_random_operations(kind: str) -> None:
    need_target()
    cases = random_cases(1, 120, kind)
    assert len(cases) > 100
    check_on_target(cases)


@pytest.mark.parametrize("kind", KINDS)
def test_plain_weights(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """What cannot be packed, as the sums of wide layers."""
    need_target()
    rng = np.random.default_rng(5)
    wide = dense(rng, 1, 8191, 5)
    wide.inputs["filter"].data = np.full((5, 8191), -127, np.int8)
    x, filters = wide.inputs["input"], wide.inputs["filter"]
    assert x.scale is not None and filters.scale is not None
    x.zero_point, wide.output.scale = -128, np.array([x.scale[0] * filters.scale.max() * 2.0**20], np.float32)
    cases = [Case(wide, kernel, random_values(rng, wide)) for kernel in kernels_of(wide)]
    assert cases and isinstance(pack_layer(wide), str)
    for module in (conv, dense_kernels):
        monkeypatch.setattr(module, "packed_or_plain", lambda op: pack_layer(op, plain=True))
    check_on_target(cases + random_cases(2, 60, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_trained_biases(kind: str) -> None:
    """From those of a fresh adapter to changes that clamp every output."""
    need_target()
    rng = np.random.default_rng(6)
    cases: list[Case] = []
    while len(cases) < 60:
        layer, _ = random_operation(rng, kind)
        if ADAPTERS["bitfit"].refuses(layer) is not None:
            continue
        made = adapt(layer, "bitfit")
        master = bias_masters(rng, layer, str(rng.choice(MASTER_STYLES)))
        quantize = made["BITFIT_QUANTIZE"]
        bias = quantize.op.evaluate(quantize, {"master": master})["bias"]
        values = random_values(rng, layer) | {"bias": bias}
        for kernel in kernels_of(layer):
            cases.append(Case(layer, kernel, values))
            cases += [Case(layer, kernel, values, overlap) for overlap in layer.op.behind(layer).items()]
    check_on_target(cases)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(int(os.environ.get("TINYPEFT_KERNEL_SEEDS", "10"))))
@pytest.mark.parametrize("kind", KINDS)
def test_many_random_operations(kind: str, seed: int) -> None:
    need_target()
    check_on_target(random_cases(1000 + seed, 250, kind))


WINDOWS = {
    "keywords": Window(49, 10, 1, 25, 5, 64, 10, 4, 2, 2, 1, 1, 4, 1),
    "three channels, stride 2": Window(96, 96, 3, 48, 48, 8, 3, 3, 2, 2),
    "three channels": Window(16, 16, 3, 16, 16, 16, 3, 3, 1, 1, 1, 1, 1, 1),
    "sixteen channels": Window(8, 8, 16, 8, 8, 16, 3, 3, 1, 1, 1, 1, 1, 1),
    "sixty-four channels": Window(4, 4, 64, 4, 4, 64, 3, 3, 1, 1, 1, 1, 1, 1),
    "one row of taps": Window(4, 20, 6, 4, 18, 10, 1, 3),
    "one column of taps": Window(20, 3, 6, 18, 3, 10, 3, 1),
    "pointwise": Window(25, 5, 64, 25, 5, 64, 1, 1),
    "narrow pointwise": Window(24, 24, 8, 24, 24, 16, 1, 1),
    "wide pointwise": Window(3, 3, 256, 3, 3, 64, 1, 1),
    "pointwise, stride 2": Window(16, 16, 16, 8, 8, 32, 1, 1, 2, 2),
}


def test_estimates_are_near_the_counts() -> None:
    """Within a twentieth and what small layers need around; needs the profile."""
    need_target()
    rng = np.random.default_rng(3)
    operations = []
    for window in WINDOWS.values():
        operation = conv_2d(rng, window)
        while not kernels_of(operation):
            operation = conv_2d(rng, window)
        operations.append(operation)
    for inputs, channels in ((640, 128), (128, 128), (128, 8), (8, 128), (64, 12), (37, 5)):
        operation = dense(rng, 1, inputs, channels)
        while not kernels_of(operation):
            operation = dense(rng, 1, inputs, channels)
        operations.append(operation)
    cases = [Case(op, kernel, random_values(rng, op)) for op in operations for kernel in kernels_of(op)]
    for case, result in zip(cases, check_on_target(cases, profile=True), strict=True):
        assert case.kernel.cycles == pytest.approx(result.cycles, rel=0.05, abs=3000), (
            case.operation,
            case.kernel.form,
        )


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 31), st.sampled_from(KINDS), st.booleans(), st.booleans())
def test_requantization_equals_that_of_the_layer(seed: int, kind: str, few: bool, plain: bool) -> None:
    """For every accumulator around each step of the output, and at random, wherever an accumulator can be."""
    rng = np.random.default_rng(seed)
    if kind == "CONV_2D":
        operation = conv_2d(rng, random_window(rng, int(rng.integers(1, 20)), 2 if few else 9))
    else:
        operation = dense(rng, 1, int(rng.integers(1, 200)), 2 if few else 9)
    ranges = accumulator_range(operation)
    form = requantization(operation, ranges, plain)
    if isinstance(form, str):
        return
    multiplier, shift = multipliers(operation)
    scale = multiplier / 2.0**31 * 2.0 ** shift.astype(float)
    low, high = output_range(operation)
    constant = constant_channels(operation, ranges)
    for c, upper in enumerate(is_high(len(scale))):
        steps = (np.arange(-260, 261) + 0.5) / max(scale[c], 1e-12)
        near = np.clip(steps, -(2.0**40), 2.0**40).astype(np.int64)[:, None] + np.arange(-3, 4)
        acc = np.concatenate([near.reshape(-1), rng.integers(ranges.low[c], ranges.high[c] + 1, 1000)])
        acc = np.unique(np.clip(acc, ranges.low[c], ranges.high[c]))
        expected = _reference(operation, acc, c)
        if isinstance(form, Stepped) and constant[c]:
            acc = np.zeros(1, np.int64)
            expected = expected[:1]
        np.testing.assert_array_equal(
            _computed(form, acc, c, bool(upper) and not plain, low, high, operation), expected
        )


def _reference(operation: Operation, acc: np.ndarray, channel: int) -> np.ndarray:
    from tinypeft import arithmetic

    multiplier, shift = multipliers(operation)
    single = operation.kind == "FULLY_CONNECTED"
    rounding = arithmetic.requantize_single if single else arithmetic.requantize_double
    low, high = output_range(operation)
    return np.clip(rounding(acc, multiplier[channel], shift[channel]) + operation.output.zero_point, low, high)


def _computed(
    form: Stepped | Rounded, acc: np.ndarray, c: int, upper: bool, low: int, high: int, operation: Operation
) -> np.ndarray:
    """What the instructions do, with their widths checked."""
    multiplier = int(form.multiplier[c])
    assert -(1 << 31) <= multiplier < 1 << 31
    if isinstance(form, Stepped):
        left = (acc << (8 if upper else form.low_shift)) + form.offset[c]
        value = _s32(left) * multiplier >> 32
        value = _s32(value) >> (form.high_shift if upper else 16)
        assert (np.abs(value) < 1 << 15).all()
    else:
        doubled = _s32(acc << (0 if form.once else 1))
        value = (doubled * multiplier + (0 if form.once else 1 << 31)) >> 32
        value = value + np.where(form.away & (value < 0), -1, 0)
        value = (value >> form.shift[c]) + (value >> (form.shift[c] - 1) & 1) + operation.output.zero_point + 128
        assert form.wide or (np.abs(value) < 1 << 15).all()
    return np.clip(np.clip(_s32(value), 0, 255) - 128, low, high)


def _s32(values: np.ndarray) -> np.ndarray:
    assert (values >= -(1 << 31)).all() and (values < 1 << 31).all()
    return values


def test_reasons() -> None:
    """Operations without a kernel have one."""
    rng = np.random.default_rng(4)
    operation, _ = random_operation(rng, "QUANTIZE")
    assert isinstance(BACKENDS["dsp"].offers(operation, M4), str)
    layer = conv_2d(rng, Window(5, 5, 4, 3, 3, 8, 3, 3))
    assert kernels_of(layer)
    filters = layer.inputs["filter"]
    assert filters.data is not None
    halves = Tensor("w", (8, 3, 3, 2), "int8", filters.purpose, filters.scale, 0, filters.data[..., :2])
    grouped = Operation(layer.op, "grouped", layer.inputs | {"filter": halves}, layer.outputs, layer.attributes)
    assert "groups" in str(BACKENDS["dsp"].offers(grouped, M4))
    layer.inputs["multiplier"] = layer.output
    assert "scales" in str(BACKENDS["dsp"].offers(layer, M4))
    del layer.inputs["multiplier"]
    filters.data = None
    assert "not constant" in str(BACKENDS["dsp"].offers(layer, M4))
