"""Merging: weights equal float computation before they are rounded, outputs differ as the report says, no overhead."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from projects import CONFIGURATIONS, TRAINABLE
from tflite_builder import build_model, conv_2d, int8_tensor
from trained import MERGEABLE, TrainedModel, compiled, outputs, trained

from tinypeft.adapter_state import adapter_from_masters
from tinypeft.adapters import AdapterConfig, base_layer
from tinypeft.compiler import compile_model
from tinypeft.errors import AdapterError
from tinypeft.frontend import flatfile, load_tflite, read_tflite
from tinypeft.ir import Operation
from tinypeft.merging import Merged, merge_adapter
from tinypeft.merging.check import check_merged
from tinypeft.merging.weights import quantize_layer
from tinypeft.ops.weighted import filter_scales, input_scale
from tinypeft.oracle import LiteRtOracle
from tinypeft.training import TrainingConfig

QUICK = ("plain", "whole_conv", "more_classes", "channels", "sparse_forms", "lora_channels", "dense_reshape")
EVERY = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in MERGEABLE]
#: steps of int8 by which an output of a small model may differ once its adapters are merged
TOLERANCE = 3


def merge(made: TrainedModel) -> Merged:
    return merge_adapter(made.model, made.source.tflite, made.adapter)


def channels(op: Operation, filters: np.ndarray) -> np.ndarray:
    """(Cout, weights of a channel)."""
    return (
        filters[0].reshape(-1, filters.shape[-1]).T
        if op.kind == "DEPTHWISE_CONV_2D"
        else filters.reshape(len(filters), -1)
    )


@pytest.mark.parametrize("name", EVERY)
def test_merged_outputs_are_those_of_the_adapter(name: str) -> None:
    """LiteRT and interpreter give the same bits, which are the device's but for the rounding of weights."""
    made = trained(name)
    merged = merge(made)
    graph = read_tflite(merged.tflite)
    assert [op.kind for op in graph.operations] == [op.kind for op in made.source.graph.operations]
    ours, litert = outputs(graph, {}, made.samples.x), LiteRtOracle(merged.tflite).outputs(made.samples.x)
    np.testing.assert_array_equal(ours, litert.reshape(ours.shape))
    unmerged = outputs(made.model.inference, made.adapter.state, made.samples.x)
    scale = graph.outputs[0].scale if graph.outputs[0].scale is not None else made.model.output.scale
    steps = 1.0 if graph.outputs[0].dtype == "int8" else float(np.abs(unmerged).max()) / 128
    assert scale is not None or steps > 0
    difference = np.abs(ours.astype(np.float64) - unmerged.astype(np.float64))
    assert difference.max() <= TOLERANCE * steps
    if unmerged.shape == outputs(made.model.base, {}, made.samples.x).shape:
        base = outputs(made.model.base, {}, made.samples.x)
        assert np.abs(unmerged.astype(np.float64) - base).mean() > difference.mean(), "nothing was learnt"


@pytest.mark.parametrize("name", ["plain", "channels", "whole_conv", "sparse_forms", "lora_channels"])
def test_merged_weights_equal_float_computation(name: str) -> None:
    """Each kind's own formula, written once more from the masters."""
    made = trained(name)
    merged, state, config = merge(made), made.adapter.state, made.model.adapter
    assert merged.weights.keys() == made.model.adapted_by.keys()
    for op in made.model.base.operations:
        kinds = made.model.adapted_by.get(op.name, ())
        if not kinds:
            continue
        base = base_layer(op)
        expected, bias = channels(op, base.filter).copy(), base.bias.copy()
        for kind in kinds:
            if kind == "bitfit":
                bias += state[f"{op.name}_bias_master"].astype(np.float64)
            elif kind == "lora":
                a, b = (state[f"{op.name}_lora_{m}_master"].astype(np.float64) for m in "AB")
                expected += b @ a.reshape(len(a), -1) * config.lora_alpha / config.r
            elif kind == "ia3":
                factor = state[f"{op.name}_ia3_l_master"].astype(np.float64)
                expected, bias = expected * factor[:, None], bias * factor
            elif kind == "modules_to_save":
                expected = state[f"{op.name}_kernel_master"].reshape(len(bias), -1).astype(np.float64)
                bias = state[f"{op.name}_bias_master"].astype(np.float64)
            else:
                assert kind == "sparse"
                assert made.model.reset is not None
                masters = f"{op.name}_sparse_rows_master"
                start = next(o for o in made.model.reset.operations if o.output.name == masters)
                rows = state[masters].astype(np.float64)
                expected[start.attributes["channel"]] = rows.reshape(len(rows), -1)
                bias[start.attributes["channel"]] = state[f"{op.name}_sparse_bias_master"]
        found = merged.weights[op.name]
        np.testing.assert_allclose(channels(op, found.filter), expected, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(found.bias, bias, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["plain", "channels", "lora_channels", "sparse_forms"])
def test_the_report_is_what_the_file_holds(name: str) -> None:
    made = trained(name)
    merged = merge(made)
    graph = {op.name: op for op in read_tflite(merged.tflite).operations}
    assert [report.operation for report in merged.layers] == list(made.model.adapted_by)
    for report in merged.layers:
        op, before = graph[report.operation], base_layer(graph[report.operation])
        scale = filter_scales(op).astype(np.float64)[:, None]
        found = np.abs(channels(op, before.filter) - channels(op, merged.weights[op.name].filter)) / scale
        assert report.largest_error == pytest.approx(found.max(), abs=1e-6)
        assert report.mean_error == pytest.approx(found.mean(), abs=1e-6)
        assert report.mean_error <= report.largest_error
        bias = np.abs(before.bias - merged.weights[op.name].bias) / (input_scale(op) * scale[:, 0])
        assert bias.max() <= 0.501


def test_unchanged_layers_and_scales_keep_their_bytes() -> None:
    made = compiled("plain", AdapterConfig(r=2, target_modules=("stem",), modules_to_save=()))
    before, after = (flatfile.parse(file) for file in (made.source.tflite, merge(made).tflite))
    different = []
    for old, new in zip(before.operators, after.operators, strict=True):
        assert old.outputs[0].scale.tolist() == new.outputs[0].scale.tolist()
        pairs = [(a, b) for a, b in zip(old.inputs, new.inputs, strict=True) if a is not None and b is not None]
        if any(a.raw != b.raw or a.scale.tolist() != b.scale.tolist() for a, b in pairs):
            different.append(old.inputs[1].label)
    assert different == ["m/stem/Conv2D_k"]
    fresh = replace(made.adapter, state=made.model.fresh_state(0))
    again = flatfile.parse(merge(replace(made, adapter=fresh)).tflite)
    for old, new in zip(before.operators, again.operators, strict=True):
        assert [t and (t.raw, t.scale.tolist()) for t in old.inputs] == [
            t and (t.raw, t.scale.tolist()) for t in new.inputs
        ]


def test_what_only_scales_loses_nothing() -> None:
    """IA3 multiplies whole channels: their integers stay and the scale takes the factor."""
    made = trained("ia3")
    merged = merge(made)
    assert max(report.largest_error for report in merged.layers) < 1e-4
    for op in read_tflite(merged.tflite).operations:
        if op.name in merged.weights:
            base = next(other for other in made.source.graph.operations if other.name == op.name)
            np.testing.assert_array_equal(op.inputs["filter"].data, base.inputs["filter"].data)
            assert not np.array_equal(filter_scales(op), filter_scales(base))


def test_outgrown_logits_scale_the_output() -> None:
    """The merged classifier's scale is the base's times the power of two by which the device's has grown."""
    made = trained("dense_reshape")
    shift = next(name for name in made.adapter.state if name.endswith("_output_shift"))
    state = made.adapter.state | {shift: made.adapter.state[shift] + np.int8(1)}
    merged = merge(replace(made, adapter=replace(made.adapter, state=state)))
    found, base = read_tflite(merged.tflite).outputs[0].scale, made.model.base.outputs[0].scale
    assert found is not None and base is not None
    assert found[0] == base[0] * 2.0 ** int(state[shift][0])


def test_layers_of_one_filter_get_filters_of_their_own() -> None:
    """Both read one constant of the file; each has its own adapter."""
    rng = np.random.default_rng(4)
    x, y, z = (int8_tensor(name, (1, 4, 4, 3), 0.03, 2) for name in ("x", "m/a/Conv2D", "m/b/Conv2D"))
    kernel = int8_tensor("shared_k", (3, 3, 3, 3), [0.01, 0.02, 0.03], 0, rng.integers(-100, 101, (3, 3, 3, 3)))
    nodes = [conv_2d(s, kernel, None, t, strideH=1, strideW=1, padding=0) for s, t in ((x, y), (y, z))]
    source = load_tflite("shared", build_model(*nodes), {})
    assert len({op.inputs["filter"].source for op in source.graph.operations}) == 1
    config = AdapterConfig("ia3+bitfit", modules_to_save=())
    training = TrainingConfig(loss="mean_squared_error", target="vector")
    model = compile_model("shared", source.fingerprint, source.graph, config, training)
    masters = {p.master.name: rng.uniform(0.3, 2.0, p.master.shape) for p in model.parameters}
    adapter = adapter_from_masters(model, masters)
    merged = merge_adapter(model, source.tflite, adapter).tflite
    first, second = read_tflite(merged).operations
    assert first.inputs["filter"].source != second.inputs["filter"].source
    samples = rng.integers(-128, 128, (5, 1, 4, 4, 3)).astype(np.int8)
    np.testing.assert_allclose(
        LiteRtOracle(merged).outputs(samples).astype(int), outputs(model.inference, adapter.state, samples), atol=1
    )


@pytest.mark.parametrize("name", [n for n in TRAINABLE if n not in MERGEABLE and n in ("bottleneck", "input_offset")])
def test_what_cannot_be_merged_is_refused(name: str) -> None:
    with pytest.raises(AdapterError, match=rf"the {name} on (the input|layer \w+) cannot be merged: it (adds|moves) "):
        merge(trained(name))


def test_the_merged_model_has_no_overhead() -> None:
    """Compiled without adapters, it runs the base's operations with the base's arena."""
    made = trained("plain")
    none = AdapterConfig(adapter="none")
    compiled_again = [
        compile_model(source.name, source.fingerprint, source.graph, none, made.model.training_config)
        for source in (made.source, load_tflite("plain", merge(made).tflite, {}))
    ]
    base, merged = compiled_again
    assert [(op.kind, op.name) for op in merged.inference.operations] == [
        (op.kind, op.name) for op in base.inference.operations
    ]
    assert merged.arena.arena_bytes == base.arena.arena_bytes
    macs = [sum(op.op.macs(op) for op in model.inference.operations) for model in compiled_again]
    assert macs[0] == macs[1]


@pytest.mark.parametrize("name", ["plain", "channels", "regression", "binary"])
def test_check_measures_both(name: str) -> None:
    made = trained(name)
    merged = merge(made)
    dataset = made.samples
    if made.model.target is not None and made.model.target.shape:
        dataset = replace(dataset, y=np.random.default_rng(1).uniform(0, 1, (len(dataset), made.model.target.size)))
    check = check_merged(made.model, made.adapter, merged.tflite, dataset)
    unmerged = outputs(made.model.inference, made.adapter.state, dataset.x).astype(np.float64)
    litert = LiteRtOracle(merged.tflite).outputs(dataset.x).reshape(unmerged.shape)
    assert check.interpreter_is_litert and check.samples == len(dataset)
    assert check.largest_difference == np.abs(unmerged - litert).max()
    assert check.mean_difference == pytest.approx(np.abs(unmerged - litert).mean())
    if name == "plain":
        assert check.merged.accuracy == float(np.mean(litert.argmax(-1).reshape(-1) == dataset.y))
        assert check.agreement is not None and 0.5 < check.agreement <= 1
    if name == "regression":
        assert check.agreement is None and check.merged.error is not None and check.unmerged.error is not None


def test_a_changed_channel_takes_the_scale_that_loses_least() -> None:
    op = next(o for o in trained("plain").model.base.operations if o.name == "stem")
    base = base_layer(op)
    layer = base_layer(op)
    layer.filter[0] *= 0.1  # finer
    layer.filter[1] += np.abs(base.filter[1]).max() * 3  # coarser
    quantized = quantize_layer(op, layer)
    scales, before = quantized.scale, filter_scales(op)
    assert scales[0] == pytest.approx(before[0] * 0.1, rel=1e-5) and scales[1] > before[1] * 2
    np.testing.assert_array_equal(scales[2:], before[2:])
    assert quantized.filter is not None and quantized.filter[2:].tobytes() == op.inputs["filter"].data[2:].tobytes()


def test_configurations_of_all_kinds_are_merged() -> None:
    kinds = {kind for name in MERGEABLE for kinds in trained_kinds(name) for kind in kinds}
    assert kinds >= {"lora", "bitfit", "ia3", "sparse", "modules_to_save"}


def trained_kinds(name: str) -> list[tuple[str, ...]]:
    config = CONFIGURATIONS[name][1]
    return [config.kinds, () if config.modules_to_save == () else ("modules_to_save",)]
