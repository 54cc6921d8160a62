"""BitFit and IA3 whatever the masters: exact when fresh and restored, in range for every input, right in float."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from channel_cases import adapt, bias_masters, channel_case, factor_masters
from float_reference import Reference
from layer_cases import MASTER_STYLES, masters
from small_models import load
from tflite_builder import Node, fully_connected, int8_tensor, int32_constant
from weighted_cases import WEIGHTED_CASES, constants

from tinypeft.adapters import ADAPTERS, AdapterConfig, MergedLayer
from tinypeft.arithmetic import REQUANTIZE_MAX, limit_float
from tinypeft.compiler import compile_model
from tinypeft.ir import Operation
from tinypeft.ops.base import Value
from tinypeft.ops.fully_connected import dense_window
from tinypeft.ops.ia3 import factor_limits
from tinypeft.ops.loss import LossOp
from tinypeft.ops.weighted import (
    ACCUMULATOR_LIMIT,
    accumulate,
    accumulator_bound,
    filter_scales,
    input_scale,
    multipliers,
)
from tinypeft.stages.autodiff import TrainingConfig

COUNT = 120


def _fresh(made: dict[str, Operation]) -> dict[str, Value]:
    """What the quantisers give of a fresh adapter."""
    values: dict[str, Value] = {}
    for kind, start in (("BITFIT_QUANTIZE", 0.0), ("IA3_QUANTIZE", 1.0)):
        if kind in made:
            op = made[kind]
            values |= op.op.evaluate(op, {"master": np.full(op.inputs["master"].shape, start, np.float32)})
    return values


@pytest.mark.parametrize("kind", WEIGHTED_CASES)
def test_a_fresh_adapter_is_the_base_layer(kind: str) -> None:
    """With the same scratch and, where the layer reads its input directly, the same table of biases."""
    rng = np.random.default_rng(1)
    direct = without_bias = 0
    for _ in range(COUNT):
        node = WEIGHTED_CASES[kind](rng)
        base, layer = node.operation(), node.operation()
        fresh = _fresh(adapt(layer, "bitfit", "ia3"))
        x = rng.integers(-128, 128, base.inputs["input"].shape).astype(np.int8)
        values = {"input": x, **constants(node)}
        expected = base.op.evaluate(base, values)["output"]
        adapted = {n: (values | fresh)[n] for n in layer.inputs}
        np.testing.assert_array_equal(layer.op.evaluate(layer, adapted)["output"], expected)
        for fresh_value, constant in zip((fresh["multiplier"], fresh["shift"]), multipliers(base), strict=True):
            np.testing.assert_array_equal(fresh_value, constant)
        before, after = base.op.call(base), layer.op.call(layer)
        assert before is not None and after is not None
        assert layer.op.scratch_bytes(layer) == base.op.scratch_bytes(base)
        assert len(before.arguments) == len(after.arguments) and before.fields == after.fields
        if layer.attributes["trained_bias"].folded.any():
            np.testing.assert_array_equal(fresh["bias"], before.arguments[2].values)
            direct += 1
        without_bias += "bias" not in base.inputs
    assert direct > 3 or kind not in ("CONV_2D", "FULLY_CONNECTED")
    assert without_bias > 3 or kind == "CONV_2D"


@pytest.mark.parametrize("style", MASTER_STYLES)
def test_restored_masters_give_the_same_integers(style: str) -> None:
    rng = np.random.default_rng(2)
    for i in range(COUNT):
        base = WEIGHTED_CASES[list(WEIGHTED_CASES)[i % 4]](rng).operation()
        made = adapt(base, "bitfit", "ia3")
        given = {"BITFIT": bias_masters(rng, base, style), "IA3": factor_masters(rng, base.output.shape[-1], style)}
        for kind, master in given.items():
            quantize, restore = made[f"{kind}_QUANTIZE"], made[f"{kind}_RESTORE"]
            integers = quantize.op.evaluate(quantize, {"master": master})
            restored = restore.op.evaluate(restore, {n: integers[n] for n in restore.inputs})
            again = quantize.op.evaluate(quantize, restored)
            for name, value in integers.items():
                np.testing.assert_array_equal(again[name], value, f"{kind}: {name}")
                if name in restored:
                    np.testing.assert_array_equal(restored[name], value, f"{kind}: {name}")


def test_biases_are_rounded_to_steps_of_the_accumulator() -> None:
    rng = np.random.default_rng(3)
    for _ in range(COUNT):
        layer = WEIGHTED_CASES["DEPTHWISE_CONV_2D"](rng).operation()
        quantize = adapt(layer, "bitfit")["BITFIT_QUANTIZE"]
        master, state = bias_masters(rng, layer, "normal"), layer.attributes["trained_bias"]
        steps = limit_float(master) / (np.float64(input_scale(layer)) * filter_scales(layer))
        change = quantize.op.evaluate(quantize, {"master": master})["bias"] - state.base
        inside = np.abs(steps) < state.room
        error = np.abs(change - steps)[inside]
        assert (error <= 0.5 + 2.0**-21 * np.abs(steps[inside])).all()
        assert (np.abs(change[~inside]) == state.room).all()


def test_factors_scale_the_multipliers() -> None:
    """To the 31 bits of a multiplier; limited where the shift or an int8 output ends, and never negative."""
    rng = np.random.default_rng(4)
    limited = 0
    for i in range(4 * COUNT):
        layer = WEIGHTED_CASES[list(WEIGHTED_CASES)[i % 4]](rng).operation()
        made = adapt(layer, "ia3")
        quantize, restore = made["IA3_QUANTIZE"], made["IA3_RESTORE"]
        base, base_shift = multipliers(layer)
        master = factor_masters(rng, len(base), str(rng.choice(["normal", "rows apart", "one element"])))
        master[rng.random(len(master)) < 0.1] *= -1
        low, high = factor_limits(base_shift)
        expected = np.clip(master, low, high)
        limited += int((expected != master).any())
        results = quantize.op.evaluate(quantize, {"master": master})
        multiplier, shift = results["multiplier"].astype(np.float64), results["shift"].astype(np.float64)
        assert ((multiplier >= 2**30) | (base == 0)).all() and (shift >= -31).all() and (shift <= 30).all()
        actual, exact = multiplier * 2.0**shift, base * 2.0**base_shift * expected.astype(np.float64)
        assert (np.abs(actual - exact) <= 2.0**-31 * exact).all()
        np.testing.assert_array_equal(results["factor"], expected)
        restored = restore.op.evaluate(restore, results)["master"]
        np.testing.assert_array_equal(restored, np.where(base > 0, expected, 1))
        fold = results["fold_multiplier"] * 2.0 ** float(results["fold_exponent"][0])
        scales = filter_scales(layer) * expected
        assert np.abs(fold - scales).max() <= scales.max() * 2.0**-14
    assert limited > 20


@pytest.mark.parametrize("order", list(itertools.permutations(["bitfit", "lora", "ia3"])))
def test_kinds_come_in_one_order(order: tuple[str, ...]) -> None:
    assert AdapterConfig("+".join(order)).kinds == ("bitfit", "lora", "ia3")


def _dense(rng: np.random.Generator, reach: float) -> Node:
    """A dense layer whose accumulators reach this part of their limit, by a large bias; one row."""
    inputs, channels, zero_point = int(rng.integers(1, 400)), int(rng.integers(1, 12)), int(rng.integers(-128, 128))
    x = int8_tensor("x", (1, inputs), 0.05, zero_point)
    scales = np.exp(rng.uniform(-9, -2, channels))
    w = int8_tensor("w", (channels, inputs), scales, 0, rng.integers(-127, 128, (channels, inputs)))
    bound = accumulator_bound(fully_connected(x, w, None, int8_tensor("y", (1, channels), 1.0)).operation())
    bias = np.full(channels, max(int(reach * ACCUMULATOR_LIMIT) - bound, 0)) * rng.choice([-1, 1], channels)
    assert x.scale is not None and w.scale is not None
    return fully_connected(x, w, int32_constant("b", bias, x.scale * w.scale), int8_tensor("y", (1, channels), 1.0))


@pytest.mark.parametrize("reach", [0.1, 0.6, 0.999])
@pytest.mark.parametrize("style", MASTER_STYLES)
def test_accumulators_never_leave_int32(style: str, reach: float) -> None:
    """With the largest bias, the largest LoRA, and the inputs that make their sum largest."""
    rng = np.random.default_rng(5)
    for _ in range(20):
        node = _dense(rng, reach)
        layer = node.operation()
        made = adapt(layer, "bitfit", "lora", "ia3")
        lora, down, state = made["LORA_QUANTIZE"], made["LORA_DOWN"], layer.attributes["trained_bias"]
        master = {n: masters(rng, lora.inputs[n].shape, style) for n in lora.inputs}
        values: dict[str, Value] = {**constants(node), **lora.op.evaluate(lora, master)}
        change = state.room * rng.choice([-1, 1], len(state.base))
        values["bias"] = (state.base + state.folded + change).astype(np.int32)
        unit = 2.0 ** -(values["lora_shift"].astype(float) + float(values["hidden_shift"][0]))
        rows = values["filter"] + unit[:, None] * (values["lora_B"].astype(float) @ values["lora_A"].astype(float))
        for row in [*rows, *-rows]:
            operands = values | {"input": np.where(row > 0, 127, -128).astype(np.int8)[None]}
            operands["hidden"] = down.op.evaluate(down, operands)["hidden"]
            acc = accumulate(layer, dense_window(layer), operands)
            assert np.abs(acc).max() <= REQUANTIZE_MAX, f"an accumulator reaches {np.abs(acc).max()}"


def test_refusals() -> None:
    full = _dense(np.random.default_rng(6), 0.99999).operation()
    assert "have no room for another bias" in str(ADAPTERS["bitfit"].refuses(full))
    assert ADAPTERS["ia3"].refuses(full) is None
    mean = next(op for op in load("plain").graph.operations if op.kind == "MEAN")
    assert ADAPTERS["bitfit"].refuses(mean) == "is a MEAN, which has no bias"
    assert ADAPTERS["ia3"].refuses(mean) == "is a MEAN, which has no weights to scale"


def test_a_classifier_with_factors_is_trained_by_its_output() -> None:
    """Its accumulators are not what they scale; one with a trained bias alone keeps the precision of accumulators."""
    graph = load("plain").graph
    for kind, operator in (("ia3", "OUTPUT_LOGITS"), ("bitfit", "DENSE_LOGITS"), ("lora", "DENSE_LOGITS")):
        config = AdapterConfig(kind, modules_to_save=())
        training = compile_model("plain", b"", graph, config, TrainingConfig()).training
        assert training is not None
        logits = next(op for op in training.operations if isinstance(op.op, LossOp)).inputs["logits"]
        producer = training.producer(logits)
        assert producer is not None and producer.kind == operator


def _reals(rng: np.random.Generator, kind: str) -> tuple[Operation, dict[str, Value], dict[str, np.ndarray]]:
    """A small layer with both kinds: (operation, values by tensor name but the output's, factor and bias)."""
    while True:
        node = WEIGHTED_CASES[kind](rng)
        layer = node.operation()
        layer.attributes["activation"] = "NONE"
        rank = 2 if kind == "FULLY_CONNECTED" else 4
        if (
            layer.output.size < 200
            and len(layer.inputs["input"].shape) == rank
            and filter_scales(layer).max() < 50 * filter_scales(layer).min()
        ):
            break
    adapt(layer, "bitfit", "ia3")
    x = rng.integers(-128, 128, layer.inputs["input"].shape).astype(np.int8)
    values: dict[str, Value] = {layer.inputs["input"].name: x}
    channels = layer.output.shape[-1]
    return layer, values, {"multiplier": rng.uniform(0.3, 3, channels), "bias": rng.normal(0, 1, channels)}


def _float_layer(layer: Operation, values: dict[str, Value], trained: dict[str, np.ndarray]) -> np.ndarray:
    """factor * (filter x + bias) in float64, from the integer accumulators of a layer without a bias."""
    plain = {n: t for n, t in layer.inputs.items() if n in ("input", "filter")}
    attributes = {n: value for n, value in layer.attributes.items() if n in ("window", "activation", "output_shape")}
    unit = np.float64(input_scale(layer)) * filter_scales(layer)
    if layer.kind in ("CONV_2D", "FULLY_CONNECTED"):
        window = layer.attributes.get("window") or dense_window(layer)
        op = Operation(layer.op, "plain", plain, dict(layer.outputs), attributes)
        operands = {"input": values[plain["input"].name], "filter": plain["filter"].data}
        acc = accumulate(op, window, operands)
    else:
        window, x = layer.attributes["window"], values[plain["input"].name].astype(np.int64)
        x, w = x - plain["input"].zero_point, plain["filter"].data
        assert w is not None
        if layer.kind == "DEPTHWISE_CONV_2D":
            patches = np.repeat(window.patches(x), window.output_c // window.input_c, axis=-1)
            acc = (patches * w[0].astype(np.int64)).sum((2, 3)).reshape(-1, len(unit))
        else:
            taps = np.tensordot(x[0], w.astype(np.int64), (2, 3)).transpose(0, 1, 3, 4, 2)
            acc = window.scatter(taps.astype(np.float64)).reshape(-1, len(unit))
    return trained["multiplier"] * (acc * unit + trained["bias"])


@pytest.mark.parametrize("kind", WEIGHTED_CASES)
def test_reference_gradients_follow_finite_differences(kind: str) -> None:
    """Those that the integer backward is held against."""
    rng = np.random.default_rng(7)
    for _ in range(10):
        layer, values, trained = _reals(rng, kind)
        weights = rng.normal(0, 1, layer.output.shape).reshape(-1, layer.output.shape[-1])
        output = _float_layer(layer, values, trained)
        assert layer.output.scale is not None
        layer.output.scale = np.array([np.abs(output).max() / 50], np.float32)  # so that nothing is clamped
        layer.output.zero_point = 0
        values[layer.output.name] = (output / layer.output.scale[0]).reshape(layer.output.shape)
        values[layer.attributes["factors"].factor.name] = trained["multiplier"]
        reference = Reference(values)
        reference.add(layer.output, weights)
        reference.backward(layer)
        for name, start in trained.items():
            step = 1e-4 * np.abs(start).max()
            for c in range(len(start)):
                moved = [dict(trained), dict(trained)]
                for sign, each in zip((1, -1), moved, strict=True):
                    each[name] = start + sign * step * (np.arange(len(start)) == c)
                high, low = ((weights * _float_layer(layer, values, each)).sum() for each in moved)
                expected = (high - low) / (2 * step)
                actual = reference.gradients[layer.inputs[name].name][c]
                scale = np.abs(reference.gradients[layer.inputs[name].name]).max()
                assert abs(actual - expected) <= 1e-4 * max(abs(expected), 1e-3 * scale), f"{name}[{c}]"


@pytest.mark.parametrize("kind", WEIGHTED_CASES)
def test_merged_weights_compute_the_same(kind: str) -> None:
    """output = factor * (filter x + bias): the base's own computation with the merged filter and bias."""
    rng = np.random.default_rng(8)
    for _ in range(10):
        layer = WEIGHTED_CASES[kind](rng).operation("op")
        channels = layer.output.shape[-1]
        master = {
            "op_bias_master": (rng.normal(0, 5, channels) * input_scale(layer) * filter_scales(layer)).astype(
                np.float32
            ),
            "op_ia3_l_master": rng.uniform(0.5, 2, channels).astype(np.float32),
        }
        shape, axis = layer.inputs["filter"].shape, -1 if kind == "DEPTHWISE_CONV_2D" else 0
        merged = MergedLayer(rng.normal(0, 1, shape), rng.normal(0, 1, channels))
        filters, bias = merged.filter.copy(), merged.bias.copy()
        for adapter in AdapterConfig("ia3+bitfit").kinds:
            ADAPTERS[adapter].merge(layer, AdapterConfig(), master, merged)
        for c in range(channels):
            factor = float(master["op_ia3_l_master"][c])
            np.testing.assert_allclose(merged.filter.take(c, axis), filters.take(c, axis) * factor)
            expected = factor * (bias[c] + float(master["op_bias_master"][c]))
            np.testing.assert_allclose(merged.bias[c], expected, rtol=1e-12)


def test_parameters_have_pefts_names_and_shapes() -> None:
    model = compile_model("plain", b"", load("plain").graph, AdapterConfig("bitfit+ia3"), TrainingConfig())
    state = model.fresh_state(1)
    found = {p.peft_name: p.to_peft(state[p.master.name]) for p in model.parameters}
    shapes = {"stem": (1, 6, 1, 1), "dw": (1, 6, 1, 1), "pointwise": (1, 8, 1, 1)}
    assert {n: v.shape for n, v in found.items() if n.endswith("ia3_l")} == {
        f"{layer}.ia3_l": shape for layer, shape in shapes.items()
    }
    base = {op.layer: op for op in model.base.operations}
    for layer in shapes:
        bias = base[layer].inputs["bias"].data
        assert bias is not None
        unit = input_scale(base[layer]) * filter_scales(base[layer])
        np.testing.assert_array_equal(found[f"{layer}.bias"], bias.astype(np.float32) * unit)
    for p in model.parameters:
        np.testing.assert_allclose(p.from_peft(p.to_peft(state[p.master.name])), state[p.master.name], atol=1e-6)


@pytest.mark.parametrize("kind", WEIGHTED_CASES)
def test_cases_cover_both_kinds(kind: str) -> None:
    rng = np.random.default_rng(9)
    seen = [set(channel_case(rng, "op", kind)) for _ in range(30)]
    assert {"BITFIT_QUANTIZE", "IA3_QUANTIZE"} <= set.union(*seen) and any(len(kinds) == 5 for kinds in seen)
