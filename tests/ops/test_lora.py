"""What the LoRA quantiser promises whatever the masters: ranges that hold for every input, small errors, a way back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from layer_cases import MASTER_STYLES, lora_operations, masters
from tflite_builder import Node, conv_2d, fully_connected, int8_tensor, int32_constant, transpose_conv

from tinypeft.adapters import ADAPTERS
from tinypeft.arithmetic import ACCUMULATOR_MAX, MASTER_LIMIT, REQUANTIZE_MAX
from tinypeft.ir import Operation
from tinypeft.ops.base import Value
from tinypeft.ops.fully_connected import dense_window
from tinypeft.ops.weighted import ACCUMULATOR_LIMIT, accumulate, accumulator_bound, input_range

SEEDS, STYLES = st.integers(0, 2**32 - 1), st.sampled_from(MASTER_STYLES)
_EXAMPLES = settings(max_examples=150, deadline=None)


def _dense(rng: np.random.Generator, reach: float = 0.5) -> tuple[Operation, dict[str, Value]]:
    """A dense layer whose accumulators reach this part of int32, by a large bias; one row."""
    inputs, channels = int(rng.integers(1, 400)), int(rng.integers(1, 12))
    zero_point = int(rng.choice([-128, 127, 0, rng.integers(-128, 128)]))
    x = int8_tensor("x", (1, inputs), 0.05, zero_point)
    w = int8_tensor(
        "w", (channels, inputs), np.exp(rng.uniform(-9, -2, channels)), 0, rng.integers(-127, 128, (channels, inputs))
    )
    l1 = np.abs(w.data.astype(np.int64)).sum(1) * input_range(x)  # type: ignore[union-attr]
    bias = (int(reach * ACCUMULATOR_LIMIT) - l1).clip(0) * rng.choice([-1, 1], channels)
    assert x.scale is not None and w.scale is not None
    node = fully_connected(x, w, int32_constant("b", bias, x.scale * w.scale), int8_tensor("y", (1, channels), 1.0))
    return node.operation(), {"filter": w.data, "bias": bias.astype(np.int32)}


def _quantized(seed: int, styles: tuple[str, str], reach: float = 0.5) -> tuple[dict[str, Operation], dict[str, Value]]:
    rng = np.random.default_rng(seed)
    base, values = _dense(rng, reach)
    made = lora_operations(base, int(rng.integers(1, 9)), float(rng.choice([1.0, 16.0, 1e4])))
    quantize = made["LORA_QUANTIZE"]
    for name, style in zip(("master_A", "master_B"), styles, strict=True):
        values[name] = masters(rng, quantize.inputs[name].shape, style)
    with np.errstate(over="ignore", invalid="ignore"):
        return made, values | quantize.op.evaluate(quantize, values)


def _extreme_inputs(rows: np.ndarray) -> np.ndarray:
    """For each row of weights the two int8 inputs that make its sum largest and smallest."""
    return np.concatenate([np.where(rows > 0, 127, -128), np.where(rows > 0, -128, 127)]).astype(np.int8)


@_EXAMPLES
@given(SEEDS, STYLES, STYLES)
def test_hidden_values_never_leave_int16(seed: int, style_a: str, style_b: str) -> None:
    made, values = _quantized(seed, (style_a, style_b))
    down = made["LORA_DOWN"]
    assert np.abs(values["lora_A"].astype(int)).max() <= 127
    shift = int(values["hidden_shift"][0])
    largest = 0
    for x in _extreme_inputs(values["lora_A"]):
        acc = (x.astype(np.int64) - down.inputs["input"].zero_point) @ values["lora_A"].T.astype(np.int64)
        exact = np.floor(acc / 2.0**shift + 0.5)
        assert np.abs(exact).max() <= 32767, f"A row gives a hidden value of {exact} at shift {shift}"
        hidden = down.op.evaluate(down, values | {"input": x[None]})["hidden"]
        np.testing.assert_array_equal(hidden.reshape(-1), exact)
        largest = max(largest, int(np.abs(exact).max()))
    assert shift == 0 or largest > 32767 // 5, "the hidden values use their range"


@_EXAMPLES
@given(SEEDS, STYLES, STYLES, st.sampled_from([0.1, 0.9, 0.999, 1.0]))
def test_accumulators_never_leave_int32(seed: int, style_a: str, style_b: str, reach: float) -> None:
    made, values = _quantized(seed, (style_a, style_b), reach)
    layer, down = made["layer"], made["LORA_DOWN"]
    assert layer.op.check(layer) is None
    unit = 2.0 ** -(values["lora_shift"].astype(float) + float(values["hidden_shift"][0]))
    effective = values["filter"] + unit[:, None] * (values["lora_B"].astype(float) @ values["lora_A"].astype(float))
    for rows in (effective, values["lora_A"]):
        for x in _extreme_inputs(rows):
            operands = values | {"input": x[None]}
            operands["hidden"] = down.op.evaluate(down, operands)["hidden"]
            acc = accumulate(layer, dense_window(layer), operands)
            assert np.abs(acc).max() <= REQUANTIZE_MAX, f"an accumulator reaches {np.abs(acc).max()}"


@_EXAMPLES
@given(SEEDS, st.sampled_from(["normal", "one element", "zero"]), st.sampled_from(["normal", "rows apart"]))
def test_rows_of_b_keep_their_precision(seed: int, style_a: str, style_b: str) -> None:
    """Each row has a shift of its own, so that small rows beside large ones lose nothing."""
    made, values = _quantized(seed, (style_a, style_b))
    restore, b = made["LORA_RESTORE"], values["master_B"]
    restored = restore.op.evaluate(restore, values)
    largest = np.abs(b).max(1)
    steps = np.abs(values["lora_B"].astype(int)).max(1)
    assert steps.max() <= 127
    shift = values["lora_shift"].astype(float)
    unit = values["a_scale"] * 2.0 ** (float(values["hidden_shift"][0]) + shift) * restore.attributes["b_unit"]
    # but for the limits of the shift, and where the addend could leave int32
    free = (np.abs(shift) < 24) & (largest > 0) & (largest * unit < 127.6)
    assume(free.any())
    assert (steps[free] >= 64).all(), "the largest element of a row uses the range"
    error = np.abs(restored["master_B"] - b).max(1)
    assert (error[free] <= largest[free] / 127.4).all(), f"relative errors {error[free] / largest[free]}"
    a = values["master_A"]
    assert np.abs(restored["master_A"] - a).max() <= 0.501 * values["a_scale"][0]


@_EXAMPLES
@given(SEEDS, STYLES, STYLES, st.sampled_from([0.1, 1.0]))
def test_restored_masters_give_the_same_integers(seed: int, style_a: str, style_b: str, reach: float) -> None:
    made, values = _quantized(seed, (style_a, style_b), reach)
    quantize, restore = made["LORA_QUANTIZE"], made["LORA_RESTORE"]
    restored = restore.op.evaluate(restore, values)
    np.testing.assert_array_equal(restored["l1"], values["l1"])
    again = quantize.op.evaluate(quantize, restored)
    for name in ("lora_A", "hidden_shift", "l1"):
        np.testing.assert_array_equal(again[name], values[name], name)
    some = values["lora_B"].any(1)  # a row of zeros may have had another shift
    for name in ("lora_B", "lora_shift"):
        np.testing.assert_array_equal(again[name][some], values[name][some], name)
    if values["lora_A"].any():
        np.testing.assert_allclose(again["a_scale"], values["a_scale"], rtol=3e-7)


def test_masters_that_are_not_finite_count_as_zero_or_the_limit() -> None:
    rng = np.random.default_rng(1)
    base, _ = _dense(rng)
    quantize = lora_operations(base, 2)["LORA_QUANTIZE"]
    shapes = {name: tensor.shape for name, tensor in quantize.inputs.items()}
    values = {name: rng.normal(0, 1, shape).astype(np.float32) for name, shape in shapes.items()}
    values["master_B"][0] = np.nan, np.inf
    values["master_A"][0, 0], limited = -np.inf, {n: v.copy() for n, v in values.items()}
    limited["master_B"][0], limited["master_A"][0, 0] = (0, MASTER_LIMIT), -MASTER_LIMIT
    for name, result in quantize.op.evaluate(quantize, values).items():
        np.testing.assert_array_equal(result, quantize.op.evaluate(quantize, limited)[name], name)


def test_grouped_and_transposed_convolutions() -> None:
    """A reads all groups; where a group is one channel, and in front of a transposed convolution, there is none."""

    def grouped(channels: int) -> Node:
        x, y = int8_tensor("x", (1, 4, 4, 6), 0.1), int8_tensor("y", (1, 4, 4, 6), 0.1)
        w = int8_tensor("w", (6, 1, 1, channels), 0.1, 0, np.zeros((6, 1, 1, channels)))
        return conv_2d(x, w, int32_constant("b", [0] * 6, 0.01), y, strideH=1, strideW=1)

    assert ADAPTERS["lora"].refuses(grouped(3).operation()) is None
    assert lora_operations(grouped(3).operation(), 2)["LORA_DOWN"].inputs["lora_A"].shape == (2, 1, 1, 6)
    assert "as many groups as channels" in str(ADAPTERS["lora"].refuses(grouped(1).operation()))
    x, y = int8_tensor("x", (1, 4, 4, 2), 0.1), int8_tensor("y", (1, 8, 8, 3), 0.1)
    w = int8_tensor("w", (3, 2, 2, 2), 0.1, 0, np.zeros((3, 2, 2, 2)))
    layer = transpose_conv(x, w, None, y, strideH=2, strideW=2).operation()
    assert "transposed convolution" in str(ADAPTERS["lora"].refuses(layer))


@pytest.mark.parametrize("zero_point", [-128, 0, 127])
def test_layers_too_wide_for_a_lora_are_refused(zero_point: int) -> None:
    def wide(inputs: int) -> Node:
        x = int8_tensor("x", (1, 1, 1, inputs), 0.1, zero_point)
        w = int8_tensor("w", (1, 1, 1, inputs), 0.1, 0, np.zeros((1, 1, 1, inputs)))
        return conv_2d(x, w, int32_constant("b", [0], 0.01), int8_tensor("y", (1, 1, 1, 1), 1.0), strideH=1, strideW=1)

    widest = ACCUMULATOR_MAX // (127 * max(127 - zero_point, zero_point + 128))
    assert ADAPTERS["lora"].refuses(wide(widest).operation()) is None
    assert f"reads {widest + 1} inputs" in str(ADAPTERS["lora"].refuses(wide(widest + 1).operation()))
    assert accumulator_bound(wide(widest).operation()) == 0
