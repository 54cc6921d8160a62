"""The short requantisation of the `dsp` backend equals the definition, and its plans read every tap once."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tinypeft.arithmetic import requantize_double
from tinypeft.kernels.dsp.rescale import Rescale, make_rescale
from tinypeft.kernels.dsp.taps import pack_weights, plan_taps


def as_instructions(rescale: Rescale, acc: np.ndarray) -> np.ndarray:
    """What the generated code makes of accumulators (C, n), instruction by instruction."""
    scale, multiplier, addend = (x[:, None] for x in (rescale.scale, rescale.multiplier, rescale.addend))
    scaled = acc * scale
    assert (np.abs(scaled) < 1 << 31).all()
    if rescale.shift:
        value = (scaled * multiplier >> 32) + addend
        assert (np.abs(value) < 1 << 31).all()
        value = np.clip(value >> rescale.shift, -128, 127)
    else:
        value = (scaled * multiplier + (1 << 31)) >> 32
        value = value + (value >> 63)
        carry = value >> (addend - 1) & 1
        value = np.clip((value >> addend) + carry + rescale.zero_point, -128, 127)
    return np.clip(value, rescale.low, rescale.high)


@st.composite
def layers(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, int, int, int]:
    """(multipliers, shifts, bounds of accumulators, zero point, low, high) of a layer of some channels."""
    channels = draw(st.integers(1, 5))
    near = draw(st.integers(-18, 1))
    multiplier = draw(
        st.lists(st.one_of(st.integers(1 << 30, (1 << 31) - 1), st.just(1 << 30), st.just(0)), min_size=channels,
                 max_size=channels)
    )  # fmt: skip
    shift = draw(st.lists(st.integers(near - 4, near), min_size=channels, max_size=channels))
    bound = draw(st.lists(st.integers(0, 1 << 22), min_size=channels, max_size=channels))
    zero_point = draw(st.one_of(st.integers(-128, 127), st.sampled_from([-128, -128, 0, 127])))
    low = draw(st.sampled_from([-128, zero_point, min(zero_point + 3, 127), max(zero_point - 3, -128)]))
    high = draw(st.one_of(st.just(127), st.integers(low, 127)))
    return np.array(multiplier), np.array(shift), np.array(bound), zero_point, low, high


@settings(max_examples=600, deadline=None)
@given(layers(), st.integers(0, 2**32 - 1))
def test_equals_the_definition_at_its_edges(
    layer: tuple[np.ndarray, np.ndarray, np.ndarray, int, int, int], seed: int
) -> None:
    multiplier, shift, bound, zero_point, low, high = layer
    below = np.where(bound % 3 > 0, bound, -(bound // 2))  # of some channels both ends are above 0
    weight = np.full(len(bound), 127)
    rescale = make_rescale(multiplier, shift, (-below, bound), weight, zero_point, (low, high))
    if isinstance(rescale, str):
        return
    # Around every step of the output, at the ends, and anywhere.
    steps = np.arange(-260, 261) + 0.5
    real = np.maximum(multiplier / 2.0**31 * 2.0**shift, 1e-30)
    edges = np.rint(steps[None, :] / real[:, None])
    near = (edges[:, :, None] + np.arange(-2, 3)).reshape(len(real), -1)
    anywhere = np.random.default_rng(seed).uniform(-1, 1, (len(real), 200)) * bound[:, None]
    ends = np.stack([bound, -below], axis=1)
    acc = np.concatenate([near, anywhere, ends], axis=1)
    acc = np.clip(acc, -below[:, None], bound[:, None]).astype(np.int64)
    wanted = requantize_double(acc, multiplier[:, None], shift[:, None]) + zero_point
    np.testing.assert_array_equal(as_instructions(rescale, acc), np.clip(wanted, low, high))


def test_what_relu_layers_take_is_two_instructions() -> None:
    shift, reach = np.array([-5, -6, -8]), np.full(3, 1 << 16)
    rescale = make_rescale(np.full(3, 1 << 30), shift, (-reach, reach), np.full(3, 127), -128, (-128, 127))
    assert isinstance(rescale, Rescale) and rescale.instructions == 2


@given(st.integers(1, 9), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_every_tap_is_read_once(taps: int, stride: int, outputs: int, seed: int) -> None:
    plan = plan_taps(taps, stride, outputs)
    rng = np.random.default_rng(seed)
    weights = rng.integers(-(1 << 15), 1 << 15, taps)
    data = rng.integers(-128, 128, (outputs - 1) * stride + taps + 2)
    packed = pack_weights(plan.weights, weights).view(np.int16).reshape(-1, 2).astype(np.int64)
    sums = np.zeros(outputs, np.int64)
    for product in plan.products:
        word = data[2 * product.word : 2 * product.word + 2]
        weight = packed[product.weight]
        if product.instruction == "smlad":
            sums[product.output] += word @ weight
        else:
            sums[product.output] += (
                word["bt".index(product.instruction[4])] * weight["bt".index(product.instruction[5])]
            )
    assert sums.tolist() == [int(data[i * stride : i * stride + taps] @ weights) for i in range(outputs)]
