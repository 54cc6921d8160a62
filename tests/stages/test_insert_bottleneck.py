"""Where bottlenecks and the input's offset are inserted, what they leave as it is, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import MODELS, load, samples
from tflite_builder import conv_2d, int8_tensor, int32_constant

from tinypeft.adapters import ADAPTERS, AdaptedGraph, AdapterConfig
from tinypeft.compiler import compile_model
from tinypeft.errors import AdapterError
from tinypeft.interpreter import run_graph
from tinypeft.ir import Graph
from tinypeft.stages.autodiff import TrainingConfig
from tinypeft.stages.insert import insert_adapters

KINDS = ("bottleneck", "parallel_bottleneck", "input_offset", "lora+bottleneck", "input_offset+lora+bottleneck")


def insert(name: str, adapter: str, *options: tuple[str, object], **config: object) -> AdaptedGraph:
    return insert_adapters(load(name).graph, AdapterConfig(adapter, options=options, **config))  # type: ignore[arg-type]


def computed(graph: Graph, argument: dict[str, np.ndarray], state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every output of every operation, by its name."""
    values: dict[str, np.ndarray] = {}
    run_graph(graph, argument, state, lambda op, operand, tensor, value: values.update({tensor.name: value}))
    return values


@pytest.mark.parametrize("function", ["relu", "hard_swish"])
@pytest.mark.parametrize("kinds", KINDS)
@pytest.mark.parametrize("name", MODELS)
def test_a_fresh_adapter_leaves_every_layer_as_it_is(name: str, kinds: str, function: str) -> None:
    base = load(name).graph
    config = AdapterConfig(kinds, options=(("non_linearity", function), ("reduction_factor", 2)))
    model = compile_model(name, b"", base, config, TrainingConfig())
    state = model.fresh_state(3)
    for x in samples(load(name), 2).x:
        argument = {base.inputs[0].name: x.reshape(base.inputs[0].shape)}
        expected, actual = computed(base, argument, {}), computed(model.inference, argument, state)
        for tensor, value in expected.items():
            np.testing.assert_array_equal(actual[tensor], value, tensor)


def test_a_bottleneck_stands_behind_its_layer() -> None:
    graph = insert("plain", "bottleneck", ("reduction_factor", 3))
    kinds = [op.kind for op in graph.graph.operations]
    behind = ["LORA_DOWN", "HIDDEN_ACTIVATION", "RESIDUAL_UP"]
    layers = ["CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D"]
    assert kinds == [k for layer in layers for k in (layer, *behind)] + ["MEAN", "FULLY_CONNECTED"]
    shapes = {p.peft_name: p.to_peft(np.zeros(p.master.shape)).shape for p in graph.parameters}
    assert shapes == {
        "stem.adapter_down.weight": (2, 6),
        "stem.adapter_up.weight": (6, 2),
        "dw.adapter_down.weight": (2, 6),
        "dw.adapter_up.weight": (6, 2),
        "pointwise.adapter_down.weight": (2, 8),
        "pointwise.adapter_up.weight": (8, 2),
        "head.weight": (5, 8),
        "head.bias": (5,),
    }


def test_a_parallel_bottleneck_stands_in_front_and_adds_in_the_accumulator() -> None:
    graph = insert("plain", "parallel_bottleneck", ("reduction_factor", 3), ("non_linearity", "hard_swish"))
    kinds = [op.kind for op in graph.graph.operations]
    assert kinds[:4] == ["LORA_DOWN", "HIDDEN_ACTIVATION", "CONV_2D", "DEPTHWISE_CONV_2D"]
    stem = graph.graph.operations[2]
    assert stem.inputs["hidden"] is graph.graph.operations[1].output
    shapes = {p.peft_name: p.to_peft(np.zeros(p.master.shape)).shape for p in graph.parameters}
    assert shapes["stem.parallel_adapter_down.weight"] == (2, 2, 3, 3)
    assert shapes["stem.parallel_adapter_up.weight"] == (6, 2, 1, 1)
    for p in graph.parameters:
        array = np.arange(p.master.size, dtype=np.float32).reshape(p.master.shape)
        assert (p.from_peft(p.to_peft(array)) == array).all()
    assert [op.kind for op in graph.quantizers[:2]] == ["LORA_QUANTIZE", "HIDDEN_GATE"]


@pytest.mark.parametrize("kinds", ["input_offset+lora", "lora+input_offset"])
def test_all_that_reads_the_input_reads_the_moved_one(kinds: str) -> None:
    graph = insert("plain", kinds).graph
    assert [op.kind for op in graph.consumers(graph.inputs[0])] == ["INPUT_OFFSET"]
    moved = graph.operations[0].output
    assert [op.kind for op in graph.consumers(moved)] == ["LORA_DOWN", "CONV_2D"]


def test_the_offset_of_a_float_input_follows_its_quantisation() -> None:
    graph = insert("float_edges", "input_offset", ("input_offset_shape", "channel"))
    assert [op.kind for op in graph.graph.operations[:3]] == ["QUANTIZE", "INPUT_OFFSET", "CONV_2D"]
    offset = next(p for p in graph.parameters if p.peft_name == "input_offset")
    assert offset.to_peft(np.zeros(offset.master.shape)).shape == (2,)


@pytest.mark.parametrize(
    ("name", "shape", "rows"),
    [("plain", (8, 7, 2), (1, 112)), ("mlp", (20,), (1, 20)), ("layout", (6, 6, 3), (1, 108)),
     ("gated", (6, 5, 3), (1, 90)), ("dense_reshape", (3, 4, 2), (1, 24)), ("forms", (6, 6, 4), (2, 72))],
)  # fmt: skip
def test_rows_of_an_offset(name: str, shape: tuple[int, ...], rows: tuple[int, int]) -> None:
    """Rows of at least 64 elements, whatever the axes."""
    offset = next(p for p in insert(name, "input_offset").parameters if p.peft_name == "input_offset")
    assert offset.master.shape == rows
    array = np.arange(offset.master.size, dtype=np.float32).reshape(rows)
    assert offset.to_peft(array).shape == shape and (offset.from_peft(offset.to_peft(array)) == array).all()


def test_a_model_whose_first_layer_is_retrained_has_an_offset_too() -> None:
    from small_models import Net

    from tinypeft.frontend import load_tflite

    net = Net((1, 12), 3)
    net.dense("only", 4)
    graph = insert_adapters(load_tflite("one", net.build(), {}).graph, AdapterConfig("input_offset"))
    assert [p.peft_name for p in graph.parameters] == ["only.weight", "only.bias", "input_offset"]
    assert [op.kind for op in graph.graph.operations] == ["INPUT_OFFSET", "FULLY_CONNECTED"]


def test_bottlenecks_on_both_sides_of_a_layer() -> None:
    names = [p.peft_name for p in insert("mlp", "bottleneck+parallel_bottleneck").parameters if p.layer == "first"]
    assert names == [
        "first.adapter_down.weight", "first.adapter_up.weight",
        "first.parallel_adapter_down.weight", "first.parallel_adapter_up.weight",
    ]  # fmt: skip


@pytest.mark.parametrize("kinds", ["lora+parallel_bottleneck", "parallel_bottleneck+lora"])
def test_an_accumulator_has_room_for_one(kinds: str) -> None:
    first, second = kinds.split("+")
    with pytest.raises(AdapterError, match=f"stem has a {first}: .* no room for a {second}"):
        insert("plain", kinds)
    apart = (("lora", ("stem",)), ("parallel_bottleneck", ("pointwise",)))
    assert len(insert("plain", kinds, targets=apart).parameters) == 6


@pytest.mark.parametrize(
    ("adapter", "options", "target", "message"),
    [
        ("bottleneck", (), ("pool",), "pool is a MEAN; a bottleneck stands behind a convolution or a dense layer"),
        ("parallel_bottleneck", (), ("dw",), "is a depthwise layer: a parallel bottleneck there costs more"),
        ("bottleneck", (("reduction_factor", 0),), None, "reduction_factor is 0, the limits are 1 and 65536"),
        ("bottleneck", (("non_linearity", "gelu"),), None, "there is no non_linearity gelu"),
        ("bottleneck", (("bottleneck_scaling", 0.0),), None, "bottleneck_scaling is 0"),
        ("input_offset", (("input_offset_shape", "row"),), None, "there is no input_offset_shape row"),
    ],
)
def test_refusals(adapter: str, options: tuple, target: tuple[str, ...] | None, message: str) -> None:
    with pytest.raises(AdapterError, match=message):
        insert("plain", adapter, *options, target_modules=target)


def test_wide_layers_need_a_larger_reduction() -> None:
    from tflite_builder import build_model

    from tinypeft.frontend import load_tflite

    x, y = int8_tensor("x", (1, 2, 2, 1), 0.1), int8_tensor("m/wide/Conv2D", (1, 2, 2, 600), 0.1)
    w = int8_tensor("w", (600, 1, 1, 1), 0.1, 0, np.ones((600, 1, 1, 1)))
    node = conv_2d(x, w, int32_constant("b", [0] * 600, 0.01), y, strideH=1, strideW=1)
    graph = load_tflite("wide", build_model(node), {}).graph
    with pytest.raises(AdapterError, match="600 channels, its bottleneck would have 300; the limit is 256") as caught:
        insert_adapters(graph, AdapterConfig("bottleneck", options=(("reduction_factor", 2),)))
    assert "--reduction-factor 3" in str(caught.value.hint)
    assert len(insert_adapters(graph, AdapterConfig("bottleneck", options=(("reduction_factor", 3),))).parameters) == 2


def test_a_channel_count_beyond_the_accumulators_is_refused() -> None:
    channels = 0x7FFE0000 // (127 * 255) + 1
    x, y = int8_tensor("x", (1, 1, 1, 1), 0.1), int8_tensor("y", (1, 1, 1, channels), 0.1, -128)
    w = int8_tensor("w", (channels, 1, 1, 1), 0.1, 0, np.ones((channels, 1, 1, 1)))
    layer = conv_2d(x, w, int32_constant("b", [0] * channels, 0.01), y, strideH=1, strideW=1).operation()
    assert f"has {channels} channels" in str(ADAPTERS["bottleneck"].refuses(layer))


def test_only_an_int8_input_has_an_offset() -> None:
    for kind in ("bottleneck", "parallel_bottleneck", "input_offset"):
        assert ADAPTERS[kind].unmerged
    dequantize = load("float_edges").graph.operations[-1]
    dequantize.inputs["input"].dtype = "float32"
    assert "reads it as float32" in str(ADAPTERS["input_offset"].refuses(dequantize))
