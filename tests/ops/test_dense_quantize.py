"""A retrained classifier: a fresh copy is the base layer exactly; scales grow with masters and with the logits seen."""

from __future__ import annotations

import numpy as np
import pytest
from cases import random_int8
from kernel_harness import compile_operations
from layer_cases import classifier, retrained_operations
from tflite_builder import Node, fully_connected, int8_tensor, int32_constant

from tinypeft.adapters import ADAPTERS
from tinypeft.ir import Operation, Purpose, Tensor
from tinypeft.ops import OPS
from tinypeft.ops.base import Value
from tinypeft.ops.update_rows import WRITTEN
from tinypeft.ops.weighted import filter_scales, input_scale, multipliers


def _base(rng: np.random.Generator, per_channel: bool) -> tuple[Operation, dict[str, Value]]:
    inputs, channels = int(rng.integers(1, 60)), int(rng.integers(1, 12))
    x = int8_tensor("x", (1, inputs), float(np.exp(rng.uniform(-6, 0))), int(rng.integers(-128, 128)))
    scales = np.exp(rng.uniform(-9, -2, channels if per_channel else 1)).astype(np.float32)
    weights = rng.integers(-127, 128, (channels, inputs))
    if per_channel:  # as converters choose the scale
        weights[np.arange(channels), rng.integers(inputs, size=channels)] = 127
    bias = rng.integers(-(1 << 21), 1 << 21, channels)
    assert x.scale is not None
    y = int8_tensor("y", (1, channels), float(x.scale[0] * scales.max() * np.exp(rng.uniform(0, 9))), 3)
    w = int8_tensor("w", (channels, inputs), scales, 0, weights)
    op = fully_connected(x, w, int32_constant("b", bias, x.scale * scales), y).operation()
    return op, {"filter": w.data, "bias": bias.astype(np.int32)}


def _fresh(op: Operation, values: dict[str, Value]) -> dict[str, Value]:
    """Masters as a fresh adapter starts with them."""
    scales, result = filter_scales(op), {}
    for operand, unit in (("filter", scales), ("bias", input_scale(op) * scales)):
        master = Tensor("m", values[operand].shape, "float32", Purpose.MASTER)
        initialize = Operation(OPS["INITIALIZE_FROM_BASE"], "i", {"weights": op.inputs[operand]}, {"master": master})
        initialize.attributes["unit"] = unit
        result[f"master_{operand}"] = initialize.op.evaluate(initialize, {"weights": values[operand]})["master"]
    return result | {"logit_range": np.zeros(2, np.int32), **_new(len(scales))}


def _new(rows: int) -> dict[str, Value]:
    return {"row_changed": np.full(rows, WRITTEN, np.int8), "growth": np.full(rows, 3, np.int8)}


@pytest.mark.parametrize("per_channel", [True, False])
def test_a_fresh_copy_is_the_base_layer(per_channel: bool) -> None:
    rng = np.random.default_rng(1)
    for _ in range(150):
        base, values = _base(rng, per_channel)
        made = retrained_operations(base)
        quantize, restore, layer = made["DENSE_QUANTIZE"], made["DENSE_RESTORE"], made["layer"]
        quantized = quantize.op.evaluate(quantize, _fresh(base, values))
        multiplier, shift = (np.broadcast_to(a, values["bias"].shape) for a in multipliers(base))
        expected = {**values, "multiplier": multiplier, "shift": shift, "output_shift": [0]}
        expected["logit_scale"] = input_scale(base) * filter_scales(base)
        for name, value in expected.items():
            np.testing.assert_array_equal(quantized[name], value, f"{base}: {name}")
        x = {"input": random_int8(rng, base.inputs["input"].shape)}
        retrained = layer.op.evaluate(layer, x | quantized)["output"]
        np.testing.assert_array_equal(retrained, base.op.evaluate(base, x | values)["output"], f"{base}")
        again = quantize.op.evaluate(quantize, quantized | restore.op.evaluate(restore, quantized))
        for name in ("filter", "bias", "multiplier", "shift", "output_shift"):
            np.testing.assert_array_equal(again[name], quantized[name], f"{base}: {name} after a restore")


def test_larger_masters_grow_the_scale_of_their_channel() -> None:
    rng = np.random.default_rng(2)
    for _ in range(150):
        base, _ = classifier(rng, "op")
        made = retrained_operations(base)
        quantize, restore = made["DENSE_QUANTIZE"], made["DENSE_RESTORE"]
        scales = filter_scales(base)
        shape = quantize.inputs["master_filter"].shape
        growth = np.exp(rng.uniform(-3, 6, shape[:1]))
        weights = (rng.uniform(-127, 127, shape) * (scales * growth)[:, None]).astype(np.float32)
        bias = rng.normal(0, 3, shape[0]).astype(np.float32)
        masters = {"master_filter": weights, "master_bias": bias, "logit_range": np.zeros(2, np.int32)}
        masters |= _new(len(weights))
        quantized = quantize.op.evaluate(quantize, masters)
        grown = np.floor(weights / scales[:, None] + 0.5)
        grown = (grown < -128).any(1) | (grown > 127).any(1)
        step = quantized["logit_scale"] / input_scale(base)
        np.testing.assert_array_equal(quantized["growth"] > 0, grown)
        assert (step[grown] <= 1.2 * np.abs(weights[grown]).max(1) / 127).all()
        np.testing.assert_allclose(step, scales * 2.0 ** (quantized["growth"] / 4), rtol=1e-6)
        restored = restore.op.evaluate(restore, quantized)
        assert (np.abs(restored["master_filter"] - weights).max(1) <= 0.5001 * step).all()
        limited = np.abs(quantized["bias"]) == 1 << 30
        error = np.abs(restored["master_bias"] - bias)[~limited]
        assert (error <= 0.5001 * quantized["logit_scale"][~limited] + 3e-7 * np.abs(bias[~limited])).all()
        unit = quantized["multiplier"] * 2.0 ** (quantized["shift"].astype(float) - 31)
        expected = quantized["logit_scale"] / float(base.output.scale[0])  # type: ignore[index]
        inside = (expected > 2.0**-31) & (expected < 2.0**30)
        np.testing.assert_allclose(unit[inside], expected[inside], rtol=3e-7)
        fold = quantized["fold_multiplier"] * 2.0 ** float(quantized["fold_exponent"][0])
        assert np.abs(fold - step).max() <= step.max() * 2.0**-14


def test_the_output_scale_follows_the_logits() -> None:
    """It grows by powers of two until the range fits, by at most 2**8; logits then come out within half a step."""
    rng = np.random.default_rng(3)
    base, values = _base(rng, True)
    made = retrained_operations(base)
    quantize, layer, logits = made["DENSE_QUANTIZE"], made["layer"], made["logits"]
    scale = float(base.output.scale[0])  # type: ignore[index]
    low, high = (-128 - 3) * scale, (127 - 3) * scale
    unit = float(logits.output.scale[0])  # type: ignore[index]
    seen = []
    for factor in (0.0, 0.5, 0.999, 1.001, 1.999, 2.001, 4.1, 100.0, 255.0, 257.0, 1e6):
        for logit_range in ((low * factor, 0.0), (0.0, high * factor), (low * factor, high * factor)):
            steps = np.clip(np.trunc(np.array(logit_range) / unit), -(1 << 31), (1 << 31) - 1)
            operands = _fresh(base, values) | {"logit_range": steps.astype(np.int32)}
            quantized = quantize.op.evaluate(quantize, operands)
            shift = int(quantized["output_shift"][0])
            assert shift == min(max(int(np.ceil(np.log2(max(factor, 1)))), 0), 8), f"{factor}: {shift}"
            seen.append(shift)
            x = {"input": random_int8(rng, base.inputs["input"].shape)}
            wide = layer.op.evaluate(layer, x | quantized)["output"].reshape(-1)
            scales = {"scale": quantized["logit_scale"]}
            real = logits.op.evaluate(logits, x | quantized | scales)["logits"].reshape(-1) * unit
            inside = (wide > -128) & (wide < 127)
            output = (wide.astype(float) - 3) * scale * 2.0**shift
            assert (np.abs(output - real) <= 0.5001 * scale * 2.0**shift)[inside].all()
            assert (np.sign(real) == np.sign(output))[~inside].all()
    assert set(seen) >= {0, 1, 2, 3, 7, 8}


def test_channels_that_have_not_changed_are_left_out() -> None:
    """The kernel leaves them as they are."""
    rng = np.random.default_rng(4)
    base, values = _base(rng, True)
    quantize = retrained_operations(base)["DENSE_QUANTIZE"]
    masters = _fresh(base, values)
    masters["master_filter"] = (masters["master_filter"] * np.float32(1.7)).astype(np.float32)
    compiled, expected = compile_operations([quantize])[0], quantize.op.evaluate(quantize, masters)
    kept = np.arange(len(masters["row_changed"])) % 2 == 1
    results = compiled.run(masters | {"row_changed": np.where(kept, 0, 1).astype(np.int8)})
    np.testing.assert_array_equal(results["filter"][~kept], expected["filter"][~kept])
    assert not results["row_changed"].any()
    assert kept.any() and (results["filter"][kept] != expected["filter"][kept]).any()  # memory as it was


def test_layers_too_wide_to_retrain_are_refused() -> None:
    def wide(inputs: int) -> Node:
        x, y = int8_tensor("x", (1, inputs), 0.1, -128), int8_tensor("y", (1, 1), 1.0)
        weights = int8_tensor("w", (1, inputs), 0.1, 0, np.zeros((1, inputs)))
        return fully_connected(x, weights, int32_constant("b", [0], 0.01), y)

    widest = (0x7FFFFE00 - (1 << 30)) // (128 * 255)
    kind = ADAPTERS["modules_to_save"]
    assert kind.refuses(wide(widest).operation()) is None
    assert "inputs" in str(kind.refuses(wide(widest + 1).operation()))
