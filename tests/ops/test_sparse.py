"""What a sparse update promises: fresh rows are the base's, nothing overflows, a way back, merged weights, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import sparse_reference
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_harness import compare_kernel, compile_operations, in_8_bits
from layer_cases import MASTER_STYLES, masters
from small_models import MODELS, load, samples
from sparse_cases import (
    LAYERS,
    insert_sparse,
    random_density,
    random_layer,
    rows_backward_input,
    rows_update,
    sparse_case,
    stretched_bias,
)
from tflite_builder import conv_2d, depthwise_conv_2d, fully_connected, int8_tensor, int32_constant

from tinypeft.adapters import ADAPTERS, AdaptedGraph, AdapterConfig, Insertion, MergedLayer
from tinypeft.adapters.sparse import adapted_channels, channels_option, rank_channels, trained_channels
from tinypeft.compiler import compile_model
from tinypeft.errors import AdapterError
from tinypeft.interpreter import run_graph
from tinypeft.ir import Graph, Operation
from tinypeft.ops.weighted import ACCUMULATOR_LIMIT, filter_scales, input_scale, whole_filters
from tinypeft.stages.autodiff import TrainingConfig
from tinypeft.stages.insert import insert_adapters

KIND = ADAPTERS["sparse"]
SEEDS, STYLES = st.integers(0, 2**32 - 1), st.sampled_from(MASTER_STYLES)


@pytest.mark.parametrize("bits", [16, 8])
@pytest.mark.parametrize("make", [rows_backward_input, rows_update])
def test_gradients_of_rows_equal_evaluate(make, bits: int) -> None:
    rng = np.random.default_rng(11)
    cases = [make(rng, f"op{i}") for i in range(150)]
    if bits == 8:
        cases = [(op, in_8_bits(op, values)) for op, values in cases]
    for compiled, (_, values) in zip(compile_operations([op for op, _ in cases]), cases, strict=True):
        compare_kernel(compiled, values)


@pytest.mark.parametrize("kind", LAYERS)
def test_fresh_rows_are_those_of_the_base(kind: str) -> None:
    """Weights, bias and requantisation are the base's integers, so every output is the base's."""
    rng = np.random.default_rng(3)
    for i in range(60):
        base, constants = random_layer(rng, f"layer{i}", kind)
        adapted = insert_sparse(base, random_density(rng))
        state: dict[str, np.ndarray] = {}
        run_graph(Graph("reset", [], [], [*adapted.initializers, *adapted.quantizers]), {}, state)
        x = rng.integers(-128, 128, base.inputs["input"].shape).astype(np.int8)
        expected = base.op.evaluate(base, constants | {"input": x})["output"]
        actual = run_graph(adapted.graph, {base.inputs["input"].name: x}, state)[0]
        np.testing.assert_array_equal(actual, expected, f"{base}")
        channel = adapted.initializers[0].attributes["channel"]
        rows, bias = (state[f"layer{i}_sparse_{name}"] for name in ("rows", "bias"))
        axis = 3 if kind == "DEPTHWISE_CONV_2D" else 0
        own = np.moveaxis(constants["filter"], axis, 0)[channel].reshape(rows.shape)
        np.testing.assert_array_equal(rows, own)
        np.testing.assert_array_equal(bias, constants["bias"][channel] if "bias" in constants else 0)


@settings(max_examples=120, deadline=None)
@given(SEEDS, st.sampled_from(LAYERS), STYLES, STYLES, st.booleans())
def test_restored_masters_give_the_same_integers(
    seed: int, kind: str, rows_style: str, bias_style: str, stretched: bool
) -> None:
    rng = np.random.default_rng(seed)
    base, _ = random_layer(rng, "layer", kind)
    adapted = insert_sparse(base, random_density(rng))
    quantize, restore = adapted.quantizers[0], adapted.restorers[0]
    scale = quantize.attributes["filter_scale"]
    values = {
        "master_rows": masters(rng, quantize.inputs["master_rows"].shape, rows_style, 127 * float(scale.mean())),
        "master_bias": masters(rng, quantize.inputs["master_bias"].shape, bias_style),
    }
    if stretched:
        values["master_bias"] = (stretched_bias(rng, len(scale)) * (input_scale(base) * scale)).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        quantized = quantize.op.evaluate(quantize, values)
    restored = restore.op.evaluate(restore, quantized)
    again = quantize.op.evaluate(quantize, restored)
    for name in quantize.outputs:
        np.testing.assert_array_equal(again[name], quantized[name], name)
        if name in restored:
            np.testing.assert_array_equal(restored[name], quantized[name], name)


@settings(max_examples=120, deadline=None)
@given(SEEDS, st.sampled_from(LAYERS), STYLES, STYLES)
def test_accumulators_never_leave_int32(seed: int, kind: str, rows_style: str, bias_style: str) -> None:
    """For the inputs that drive each row furthest; the error of every weight and bias is half a step."""
    rng = np.random.default_rng(seed)
    base, _ = random_layer(rng, "layer", kind)
    quantize = insert_sparse(base, random_density(rng)).quantizers[0]
    values = {
        "master_rows": masters(rng, quantize.inputs["master_rows"].shape, rows_style),
        "master_bias": masters(rng, quantize.inputs["master_bias"].shape, bias_style),
    }
    with np.errstate(over="ignore", invalid="ignore"):
        quantized = quantize.op.evaluate(quantize, values)
    rows = quantized["rows"].astype(np.int64).reshape(len(quantized["bias"]), -1)
    assert np.abs(rows).max() <= 127
    zero_point = base.inputs["input"].zero_point
    for low, high in ((-128, 127), (127, -128)):
        acc = (rows * (np.where(rows > 0, high, low) - zero_point)).sum(1) + quantized["bias"]
        assert np.abs(acc).max() <= ACCUMULATOR_LIMIT
    scale = quantized["scale"].astype(np.float64)
    assert (scale >= quantize.attributes["filter_scale"]).all()
    wanted = np.clip(np.nan_to_num(values["master_rows"].astype(np.float64)), -(2.0**20), 2.0**20)
    error = np.abs(wanted.reshape(rows.shape) - rows * scale[:, None])
    assert (error <= 0.5001 * scale[:, None]).all()
    fold = quantized["fold_multiplier"] * 2.0 ** float(quantized["fold_exponent"][0])
    assert np.abs(fold - scale).max() <= scale.max() * 2.0**-14
    real = scale * float(quantize.attributes["input_scale"]) / float(quantize.attributes["output_scale"])
    unit = quantized["multiplier"] * 2.0 ** (quantized["shift"].astype(float) - 31)
    inside = (real > 2.0**-31) & (real < 2.0**29)
    np.testing.assert_allclose(unit[inside], real[inside], rtol=1e-6)


@pytest.mark.parametrize("kind", LAYERS)
def test_a_large_bias_is_limited_where_accumulators_are_full(kind: str) -> None:
    rng = np.random.default_rng(5)
    base, _ = random_layer(rng, "layer", kind)
    quantize = insert_sparse(base, 1.0).quantizers[0]
    values = {n: np.full(t.shape, 2.0**20, np.float32) for n, t in quantize.inputs.items()}
    values["master_rows"] *= 0
    assert (quantize.op.evaluate(quantize, values)["bias"] == 1 << 22).all()


def test_wide_rows_leave_less_room_for_a_bias() -> None:
    inputs = 66300
    x, y = int8_tensor("x", (1, inputs), 1.0, 127), int8_tensor("y", (1, 2), 1e9)
    w = int8_tensor("w", (2, inputs), 1.0, 0, np.ones((2, inputs)))
    base = fully_connected(x, w, int32_constant("b", [0, 0], 1.0), y).operation("layer")
    base.layer = "layer"
    quantize = insert_sparse(base, 1.0).quantizers[0]
    values = {"master_rows": np.full((2, inputs), 127, np.float32), "master_bias": np.full(2, 2.0**20, np.float32)}
    values["master_bias"][1] *= -1
    room = ACCUMULATOR_LIMIT - 127 * inputs * 255
    assert 0 < room < 1 << 20
    assert compare_kernel(quantize, values)["bias"].tolist() == [room, -room]


def _merged(base: Operation, state: dict[str, np.ndarray], config: AdapterConfig) -> MergedLayer:
    filters = base.inputs["filter"].data
    assert filters is not None
    channels = base.output.shape[-1]
    scales = filter_scales(base).astype(np.float64)
    axis = -1 if base.kind == "DEPTHWISE_CONV_2D" else 0
    shape = [channels if i == axis % filters.ndim else 1 for i in range(filters.ndim)]
    bias = base.inputs["bias"].data if "bias" in base.inputs else None
    real_bias = np.zeros(channels) if bias is None else bias * (float(input_scale(base)) * scales)
    layer = MergedLayer(filters * scales.reshape(shape), real_bias)
    KIND.merge(base, config, state, layer)
    return layer


@pytest.mark.parametrize("kind", LAYERS)
def test_merged_weights_compute_what_the_rows_do(kind: str) -> None:
    """In float64: the merged layer, written as loops of its own, against the base with rows put over its outputs."""
    rng = np.random.default_rng(7)
    for i in range(20):
        base, _ = random_layer(rng, f"layer{i}", kind)
        config = AdapterConfig("sparse", modules_to_save=(), options=(("density", random_density(rng)),))
        layer = insert_sparse(base, config.options[0][1]).graph.operations[0]
        window, first, channel = (
            *(layer.attributes[n] for n in ("window", "first_channel")),
            trained_channels(base, config),
        )
        rows = rng.normal(0, 1, layer.inputs["rows"].shape)
        state = {
            f"{base.name}_sparse_rows_master": rows,
            f"{base.name}_sparse_bias_master": rng.normal(0, 1, len(rows)),
        }
        before = _merged(base, {k: np.zeros_like(v) for k, v in state.items()}, config)
        merged = _merged(base, state, config)
        x = rng.normal(0, 1, (window.input_h, window.input_w, window.input_c))
        expected = _by_loops(base, before, x)
        reads = np.zeros(len(rows), np.int16) if first is None else first
        patches = window.patches(x).reshape(-1, window.kernel_h * window.kernel_w * window.input_c)
        own = patches @ whole_filters(rows, window, reads).reshape(len(rows), -1).T
        assert not expected[:, channel].any(), "rows of zeros leave nothing of the base's channels"
        expected[:, channel] = own + state[f"{base.name}_sparse_bias_master"]
        np.testing.assert_allclose(_by_loops(base, merged, x), expected, rtol=1e-9, atol=1e-9)


def _by_loops(base: Operation, layer: MergedLayer, x: np.ndarray) -> np.ndarray:
    """(positions, Cout) of a layer in float64, one output at a time."""
    if base.kind == "FULLY_CONNECTED":
        return x.reshape(-1, x.shape[-1]) @ layer.filter.T + layer.bias
    w = base.attributes["window"]
    depthwise = base.kind == "DEPTHWISE_CONV_2D"
    result = np.zeros((w.output_h, w.output_w, w.output_c))
    each = 1 if depthwise else layer.filter.shape[-1]
    for oy, ox, c in np.ndindex(result.shape):
        first = c * (w.input_c // each) // w.output_c * each
        total = layer.bias[c]
        for ky, kx in np.ndindex(w.kernel_h, w.kernel_w):
            y = oy * w.stride_h - w.pad_top + ky * w.dilation_h
            column = ox * w.stride_w - w.pad_left + kx * w.dilation_w
            if 0 <= y < w.input_h and 0 <= column < w.input_w:
                weights = layer.filter[0, ky, kx, c : c + 1] if depthwise else layer.filter[c, ky, kx]
                total += x[y, column, first : first + each] @ weights
        result[oy, ox, c] = total
    return result.reshape(-1, w.output_c)


def _operation(name: str, layer: str) -> Operation:
    return next(op for op in load(name).graph.operations if op.layer == layer)


def test_channels_are_ranked_by_norm_or_by_given_scores() -> None:
    stem = _operation("plain", "stem")
    filters = stem.inputs["filter"].data
    assert filters is not None
    norms = [float(np.abs(filters[c].astype(float)).sum() * filter_scales(stem)[c]) for c in range(6)]
    best = sorted(sorted(range(6), key=lambda c: -norms[c])[:2])
    assert rank_channels(stem, 0.34).tolist() == best
    assert rank_channels(stem, 1e-6).tolist() == [int(np.argmax(norms))]
    assert rank_channels(stem, 1.0).tolist() == list(range(6))
    assert rank_channels(stem, 0.5, np.array([0, 3, 1, 3, 3, 3.0])).tolist() == [1, 3, 4]
    depthwise = _operation("plain", "dw")
    data = depthwise.inputs["filter"].data
    assert data is not None
    norms = [float(np.abs(data[..., c].astype(float)).sum() * filter_scales(depthwise)[c]) for c in range(6)]
    assert rank_channels(depthwise, 1e-6).tolist() == [int(np.argmax(norms))]


def test_named_channels_override_the_share() -> None:
    option = channels_option({"stem": [5, 0], "head": np.array([2])})
    assert option == "stem=5,0;head=2"
    config = AdapterConfig("sparse", modules_to_save=(), options=(("channels", option), ("density", 0.5)))
    chosen = {layer: trained_channels(_operation("plain", layer), config).tolist() for layer in ("stem", "head", "dw")}
    assert chosen["stem"] == [0, 5] and chosen["head"] == [2] and len(chosen["dw"]) == 3
    adapted = insert_adapters(load("plain").graph, config)
    rows = {p.peft_name: p.to_peft(np.zeros(p.master.shape)).shape for p in adapted.parameters}
    assert rows["stem.sparse_rows.weight"] == (2, 2, 3, 3) and rows["stem.sparse_rows.bias"] == (2,)
    assert rows["dw.sparse_rows.weight"] == (3, 1, 3, 3) and rows["head.sparse_rows.weight"] == (1, 8)
    named = adapted_channels(load("plain").graph.operations, adapted.parameters, config)
    assert named == {**chosen, "pointwise": named["pointwise"]} and len(named["pointwise"]) == 4
    again = AdapterConfig("sparse", modules_to_save=(), options=(("channels", channels_option(named)),))
    assert {name: trained_channels(_operation("plain", name), again).tolist() for name in named} == named
    for p in adapted.parameters:
        array = np.arange(p.master.size).reshape(p.master.shape)
        assert (p.from_peft(p.to_peft(array)) == array).all()


def test_a_layer_whose_every_channel_is_trained_is_not_computed_twice() -> None:
    whole = AdapterConfig("sparse", modules_to_save=(), options=(("density", 1.0),))
    kinds = [op.kind for op in insert_adapters(load("plain").graph, whole).graph.operations]
    assert kinds.count("SPARSE_ROWS") == 4 and not {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"} & set(kinds)
    beside = AdapterConfig("lora+sparse", modules_to_save=(), options=(("density", 1.0),))
    kinds = [op.kind for op in insert_adapters(load("plain").graph, beside).graph.operations]
    assert kinds.count("CONV_2D") == 2 and kinds.count("SPARSE_ROWS") == 4, "a LoRA keeps its layer"


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"channels": "stm=0"}, "names stm, which is no of the layers", "did you mean stem"),
        ({"channels": "pool=0"}, "names pool, which is no of the layers", "candidates: stem, dw, pointwise"),
        ({"channels": "stem=6"}, "names channel 6 of stem, which has 6", "name 0 to 5"),
        ({"channels": "stem"}, "has the part 'stem', expected LAYER=NUMBER", "try conv_1=0,5,7"),
        ({"channels": "stem=0,x"}, "has the part 'stem=0,x'", "try conv_1=0,5,7"),
        ({"channels": "stem="}, "has the part 'stem='", "try conv_1=0,5,7"),
        ({"channels": "stem=-1"}, "has the part 'stem=-1'", "try conv_1=0,5,7"),
        ({"channels": "stem=0,1,0"}, "names stem, or one of its channels, twice", "name each once"),
        ({"channels": "stem=0;stem=1"}, "names stem, or one of its channels, twice", "name each once"),
        ({"density": 0.0}, "density is 0, the limits are", "try --density 0.1"),
        ({"density": 1.5}, "density is 1.5, the limits are", "try --density 0.1"),
    ],
)
def test_refused_options(options: dict, message: str, hint: str) -> None:
    with pytest.raises(AdapterError, match=message) as caught:
        insert_adapters(load("plain").graph, AdapterConfig("sparse", options=tuple(options.items())))
    assert caught.value.hint is not None and hint in caught.value.hint


@pytest.mark.parametrize("kinds", ["sparse+lora", "sparse+bitfit", "ia3+sparse", "sparse+ia3+bitfit+lora"])
def test_rows_replace_what_other_kinds_leave(kinds: str) -> None:
    """In whatever order they are named; fresh, all of them leave the base layer."""
    config = AdapterConfig(kinds)
    assert config.kinds[-1] == "sparse"
    model = compile_model("plain", b"", load("plain").graph, config, TrainingConfig())
    state = model.fresh_state(1)
    for x in samples(load("plain"), 3, 1).x:
        arguments = {model.inference.inputs[0].name: x.reshape(model.inference.inputs[0].shape)}
        expected = run_graph(model.base, arguments, {})[0]
        np.testing.assert_array_equal(run_graph(model.inference, arguments, dict(state))[0], expected)


def test_rows_are_not_put_behind_what_follows_the_layer() -> None:
    base = _operation("plain", "stem")
    insertion = Insertion(AdaptedGraph(load("plain").graph))
    insertion.base, insertion.after = base, [_operation("plain", "pool")]
    with pytest.raises(AdapterError, match="cannot replace channels of stem behind a MEAN") as caught:
        KIND.insert(base, AdapterConfig("sparse"), insertion)
    assert caught.value.hint == "give the kinds layers of their own with --targets"


def test_refused_layers() -> None:
    def layer(inputs: int = 4, weight: int = 1, bias: int = 0, zero_point: int = 0) -> str | None:
        x, y = int8_tensor("x", (1, 1, 1, inputs), 0.1, zero_point), int8_tensor("y", (1, 1, 1, 1), 1.0)
        w = int8_tensor("w", (1, 1, 1, inputs), 0.1, 0, np.full((1, 1, 1, inputs), weight))
        op = conv_2d(x, w, int32_constant("b", [bias], 0.01), y, strideH=1, strideW=1).operation()
        return KIND.refuses(op)

    widest = ACCUMULATOR_LIMIT // (127 * 255)
    assert layer() is None and layer(weight=-127, bias=1 << 22) is None
    assert "weights of -128" in str(layer(weight=-128))
    assert f"a bias of {(1 << 22) + 1} steps" in str(layer(bias=-(1 << 22) - 1))
    assert layer(32768) is None
    assert f"reads {widest + 1} inputs" in str(layer(widest + 1, zero_point=127))
    many = int8_tensor("w", (1, 1, 1, 32768), 0.1, 0, np.ones((1, 1, 1, 32768)))
    ends = (int8_tensor(n, (1, 1, 1, 32768), 0.1) for n in "xy")
    depthwise = depthwise_conv_2d(next(ends), many, None, next(ends), strideH=1, strideW=1, depthMultiplier=1)
    assert "has 32768 channels, the limit is 32767" in str(KIND.refuses(depthwise.operation()))
    assert "is a MEAN, which has no rows" in str(KIND.refuses(_operation("plain", "pool")))


@pytest.mark.parametrize("adapter", ["sparse", "lora+sparse"])
@pytest.mark.parametrize("name", MODELS)
def test_a_fresh_adapter_leaves_the_model_as_it_is(name: str, adapter: str) -> None:
    source, bare = load(name), AdapterConfig("none")
    base = compile_model(name, b"", source.graph, bare, TrainingConfig()).inference
    for density in (0.3, 1.0):
        config = AdapterConfig(adapter, r=2, modules_to_save=(), options=(("density", density),))
        model = compile_model(name, b"", source.graph, config, TrainingConfig())
        state, argument = model.fresh_state(1), model.inference.inputs[0]
        for x in samples(source, 3).x:
            sample = {argument.name: x.reshape(argument.shape)}
            expected, actual = run_graph(base, sample, {})[0], run_graph(model.inference, sample, state)[0]
            np.testing.assert_array_equal(actual, expected)


def test_the_cases_hold_every_form() -> None:
    rng = np.random.default_rng(11)
    layers = [sparse_case(rng, f"op{i}", LAYERS[i % 3])["SPARSE_ROWS"][0] for i in range(60)]
    assert {op.attributes["clamped_behind"] for op in layers} == {True, False}
    assert {op.attributes["first_channel"] is None for op in layers} == {True, False}
    assert {op.attributes["rounds_once"] for op in layers} == {True, False}


@pytest.mark.parametrize("kind", LAYERS)
def test_the_reference_follows_finite_differences(kind: str) -> None:
    """The float64 gradients that the integer ones are compared with, of a sum of outputs with random weights."""
    rng = np.random.default_rng(13)
    for i in range(6):
        op, values = sparse_case(rng, f"op{i}", kind)["SPARSE_ROWS"]
        named = {t.name: values[n] for n, t in op.inputs.items()}
        name = op.inputs["rows"].name
        named[name.replace("_sparse_rows", "_sparse_scale")] = rng.uniform(0.01, 0.1, len(values["rows"]))
        rows, bias = sparse_reference.real_rows(op, named), rng.normal(0, 1, len(values["rows"]))
        x = rng.normal(0, 1, op.inputs["input"].shape)
        weights = rng.normal(0, 1, op.output.shape)
        expected = sparse_reference.gradients(op, named, x, weights)
        parts = {"rows": rows, "bias": bias, "input": x}
        for operand, part in parts.items():
            gradient = expected[operand].reshape(-1)
            for at in rng.choice(part.size, min(part.size, 8), replace=False):
                ends = []
                for step in (1e-3, -1e-3):
                    moved = {n: p.astype(np.float64).copy() for n, p in parts.items()}
                    moved[operand].reshape(-1)[at] += step
                    y = sparse_reference.forward(op, moved["rows"], moved["bias"], moved["input"])
                    ends.append((y * weights.reshape(y.shape)).sum())
                numeric = (ends[0] - ends[1]) / 2e-3
                assert abs(numeric - gradient[at]) <= 1e-4 * max(abs(gradient).max(), 1e-6), f"{op}: {operand}[{at}]"
