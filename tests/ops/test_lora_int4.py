"""A LoRA in 4 bits: what is packed, ranges that hold for every input, small errors, a way back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from layer_cases import MASTER_STYLES, lora_operations, masters
from test_lora import _dense, _extreme_inputs

from tinypeft.arithmetic import REQUANTIZE_MAX, pack_int4, unpack_int4
from tinypeft.ir import Operation
from tinypeft.ops.base import Value
from tinypeft.ops.fully_connected import dense_window
from tinypeft.ops.lora_int4 import MULTIPLIER_MAX, round_row, row_multiplier
from tinypeft.ops.weighted import accumulate

SEEDS, STYLES = st.integers(0, 2**32 - 1), st.sampled_from(MASTER_STYLES)
_EXAMPLES = settings(max_examples=100, deadline=None)


def _quantized(seed: int, styles: tuple[str, str], reach: float = 0.5) -> tuple[dict[str, Operation], dict[str, Value]]:
    """The operations and the values that they give, A and B unpacked under `A` and `B`."""
    rng = np.random.default_rng(seed)
    base, values = _dense(rng, reach)
    made = lora_operations(base, int(rng.integers(1, 9)), float(rng.choice([1.0, 16.0, 1e4])), bits=4)
    quantize = made["LORA_QUANTIZE_INT4"]
    for name, style in zip(("master_A", "master_B"), styles, strict=True):
        values[name] = masters(rng, quantize.inputs[name].shape, style)
    with np.errstate(over="ignore", invalid="ignore"):
        values |= quantize.op.evaluate(quantize, values)
    for name in "AB":
        unpack = made[f"UNPACK_INT4 lora_{name}"]
        operands = {"packed": values[f"lora_{name}"], "multiplier": values[f"{name.lower()}_multiplier"]}
        values[name] = unpack.op.evaluate(unpack, operands)["output"]
    return made, values


@given(st.lists(st.integers(-8, 7), min_size=1, max_size=33))
def test_packing_is_two_a_byte_low_nibble_first(values: list[int]) -> None:
    packed = pack_int4(np.array(values))
    assert len(packed) == (len(values) + 1) // 2 and packed[0] & 0xF == values[0] % 16
    assert unpack_int4(packed, len(values)).tolist() == values


@pytest.mark.parametrize("seed", range(20))
def test_a_rounded_row_gets_the_same_multiplier(seed: int) -> None:
    """For every peak that a row can have, in steps of int8."""
    rng = np.random.default_rng(seed)
    for peak in np.append(rng.uniform(0.01, 126.0, 500), np.arange(1, 127)).astype(np.float32):
        row = np.array([peak, -peak * rng.random(), 0.0], np.float32)
        multiplier, rounded = round_row(row, peak)
        assert 1 <= multiplier <= MULTIPLIER_MAX and np.abs(rounded // multiplier).max() <= 7
        again = np.float32(np.abs(rounded).max())
        assert row_multiplier(again) == multiplier, f"peak {peak} is rounded to {again}"
        np.testing.assert_array_equal(round_row(rounded.astype(np.float32), again)[1], rounded)
        assert abs(float(rounded[0]) - peak) <= 0.51 * multiplier


@_EXAMPLES
@given(SEEDS, STYLES, STYLES, st.sampled_from([0.1, 0.9, 0.999, 1.0]))
def test_nothing_overflows_for_any_input(seed: int, style_a: str, style_b: str, reach: float) -> None:
    made, values = _quantized(seed, (style_a, style_b), reach)
    layer, down, shift = made["layer"], made["LORA_DOWN"], int(values["hidden_shift"][0])
    unit = 2.0 ** -(values["lora_shift"].astype(float) + shift)
    effective = values["filter"] + unit[:, None] * (values["B"].astype(float) @ values["A"].astype(float))
    for rows in (effective, values["A"]):
        for x in _extreme_inputs(rows):
            operands = values | {"input": x[None], "lora_A": values["A"], "lora_B": values["B"]}
            exact = (x.astype(np.int64) - down.inputs["input"].zero_point) @ values["A"].T.astype(np.int64)
            assert np.abs(np.floor(exact / 2.0**shift + 0.5)).max() <= 32767
            operands["hidden"] = down.op.evaluate(down, operands)["hidden"]
            acc = accumulate(layer, dense_window(layer), operands)
            assert np.abs(acc).max() <= REQUANTIZE_MAX, f"an accumulator reaches {np.abs(acc).max()}"


@_EXAMPLES
@given(SEEDS, STYLES, STYLES, st.sampled_from([0.1, 1.0]))
def test_restored_masters_give_the_same_integers(seed: int, style_a: str, style_b: str, reach: float) -> None:
    made, values = _quantized(seed, (style_a, style_b), reach)
    quantize, restore = made["LORA_QUANTIZE_INT4"], made["LORA_RESTORE_INT4"]
    restored = restore.op.evaluate(restore, values)
    again = quantize.op.evaluate(quantize, restored)
    for name in ("lora_A", "a_multiplier", "hidden_shift", "l1", "lora_B"):
        np.testing.assert_array_equal(again[name], values[name], name)
    some = values["B"].any(1)  # a row of zeros may have had another shift
    for name in ("lora_shift", "b_multiplier"):
        np.testing.assert_array_equal(again[name][some], values[name][some], name)


@_EXAMPLES
@given(SEEDS, st.sampled_from(["normal", "rows apart"]))
def test_each_row_is_rounded_to_its_own_steps(seed: int, style: str) -> None:
    made, values = _quantized(seed, ("normal", style))
    restore = made["LORA_RESTORE_INT4"]
    restored = restore.op.evaluate(restore, values)
    error, largest = np.abs(restored["master_B"] - values["master_B"]).max(1), np.abs(values["master_B"]).max(1)
    shift = values["lora_shift"].astype(float)
    unit = values["a_scale"] * 2.0 ** (float(values["hidden_shift"][0]) + shift) * restore.attributes["b_unit"]
    free = (np.abs(shift) < 24) & (largest * unit < 133.1)  # but for the limits of the shift and of int32
    assume(free.any())
    assert (error[free] <= largest[free] / 12.9).all(), f"relative errors {error[free] / largest[free]}"
    error, largest = np.abs(restored["master_A"] - values["master_A"]).max(1), np.abs(values["master_A"]).max(1)
    assert (error <= largest / 6.9).all(), f"relative errors {error / largest}"
