"""Channels that are constant or unread go, and nothing that is left changes: not a bit, not what adapters need."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import ai_edge_litert.schema_py_generated as schema
import numpy as np
import pytest
from dead_channels import assert_same, deadened, inputs_of, values_of
from small_models import MODELS, Net, load
from tflite_builder import int8_tensor

from tinypeft.adapters import AdapterConfig
from tinypeft.compiler import CompiledModel, compile_model
from tinypeft.frontend import load_tflite
from tinypeft.interpreter import run_graph
from tinypeft.ir import Graph
from tinypeft.oracle import LiteRtOracle
from tinypeft.stages.autodiff import TrainingConfig
from tinypeft.stages.constant_channels import drop_constant_channels

REAL = ("kws_ref_model", "vww_96_int8", "pretrainedResnet_quant", "ad01_int8")
#: kinds of adapters, each on the layers `down` and `hidden` of the model `constant`
KINDS = (
    *("lora", "bitfit", "ia3", "sparse", "bottleneck", "parallel_bottleneck", "lora+bitfit+ia3"),
    *("modules_to_save", "input_offset"),
)


def macs(graph: Graph) -> int:
    return sum(op.op.macs(op) for op in graph.operations)


@pytest.mark.parametrize("name", REAL)
def test_real_models(name: str, shared_data: Path) -> None:
    tflite = (shared_data / "models" / f"{name}.tflite").read_bytes()
    given = load_tflite(name, tflite, {}).graph
    narrowed = drop_constant_channels(given)
    if name != "vww_96_int8":
        assert narrowed is given
        return
    assert (macs(given), macs(narrowed)) == (7_489_664, 3_727_313)
    samples = inputs_of(given, 1, 0)
    assert_same(given, narrowed, samples)
    references = LiteRtOracle(tflite).layers(samples[0])
    values = values_of(narrowed, samples[0])
    for op in narrowed.operations:
        reference = references[op.output.source]
        if op.output.narrowed is not None:
            np.testing.assert_array_equal(values[op.output.name], reference[..., op.output.narrowed.kept])
            for channel, constant in op.output.narrowed.constant.items():
                assert (reference[..., channel] == constant).all()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", MODELS)
def test_every_value_that_is_left_is_the_same(name: str, seed: int) -> None:
    given = deadened(load(name).graph, random.Random(f"{name} {seed}"))
    assert_same(given, drop_constant_channels(given), inputs_of(given, 2, seed))


def test_much_goes() -> None:
    """Of models with dead channels, through layers of all kinds."""
    narrowed, left = set(), []
    for name, seed in itertools.product(MODELS, range(12)):
        given = deadened(load(name).graph, random.Random(f"{name} {seed}"))
        graph = drop_constant_channels(given)
        narrowed |= {op.kind for op in graph.operations if op.output.narrowed is not None}
        left.append(macs(graph) / macs(given))
    kinds = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "MAX_POOL_2D", "AVERAGE_POOL_2D", "MEAN"}
    assert kinds | {"RESHAPE", "PAD"} <= narrowed
    assert min(left) < 0.5 and np.mean(left) < 0.9


def test_what_goes_of_a_layer() -> None:
    """Constant channels up to what mixes them, the value beside padding only where it is that of padding."""
    given = load("constant").graph
    graph = drop_constant_channels(given)
    assert_same(given, graph, inputs_of(given, 4, 1))
    left = {op.layer: [] if op.output.narrowed is None else op.output.narrowed.kept.tolist() for op in graph.operations}
    constant = {op.layer: op.output.narrowed.constant for op in graph.operations if op.output.narrowed is not None}
    assert left["stem"] == left["dw"] == [0, 3, 5, 6, 7]  # 6 is a constant that padding is not
    assert set(constant["stem"]) == {1, 4} and set(constant["dw"]) == {1, 2, 4}
    # 5 of entry is added to what is none; 3 of join has no reader, but branch reads that of entry
    assert left["branch"] == left["entry"] == left["join"] == left["pool"] == [1, 2, 3, 4, 5]
    assert left["down"] == left["mean"] == [0, 1, 3, 4, 5, 6]
    assert left["hidden"] == [0, 2, 3, 4, 5, 6, 7] and left["head"] == []


def test_branches_that_are_joined_and_read_flat() -> None:
    """Through QUANTIZE, CONCATENATION, functions and constant operands, up to a dense layer that reads positions."""
    net = Net((1, 5, 4, 3), 5)
    stem = net.conv("stem", 5)
    net.fix([1])
    left = net.conv("left", 4, kernel=1)
    net.fix([3])
    net.last = stem
    right = net.conv("right", 3, kernel=1, relu=False)
    net.fix([0], 400)
    joined = net.join("wide", 3, left, right)
    assert joined.scale is not None
    scale = float(joined.scale[0])
    net.function("leak", "LEAKY_RELU", scale, -60, schema.LeakyReluOptionsT(alpha=0.2))
    net.merge("gain", "MUL", int8_tensor("gains", (7,), 0.01, 3, [100, 50, -90, 127, 3, -128, 20]), scale)
    net.merge("floor", "MAXIMUM", int8_tensor("floor", (1,), scale, -20, [-60]), scale)
    net.merge("slope", "PRELU", int8_tensor("slopes", (1, 1, 7), 0.01, 0, [[[1, 2, 3, 4, 5, 6, 7]]]), scale)
    net.reshape("flat")
    net.dense("head", 3)
    net.ignore(list(range(6, 140, 7)))
    given = load_tflite("joined", net.build(), {}).graph
    graph = drop_constant_channels(given)
    assert_same(given, graph, inputs_of(given, 4, 2))
    left_out = {op.layer: op.output.shape[-1] for op in graph.operations if op.output.narrowed is not None}
    assert left_out["stem"] == 4 and left_out["left"] == 3 and left_out["right"] == 1


def test_a_layer_keeps_one_channel() -> None:
    net = Net((1, 5, 5, 2), 3)
    net.conv("stem", 4)
    net.fix([0, 1, 2, 3])
    net.mean("pool")
    net.dense("head", 3)
    given = load_tflite("dead", net.build(), {}).graph
    graph = drop_constant_channels(given)
    assert_same(given, graph, inputs_of(given, 2, 0))
    assert graph.operations[0].output.shape == (1, 5, 5, 1)


@pytest.mark.parametrize("multiple", [2, 4])
@pytest.mark.parametrize("name", MODELS)
def test_a_multiple_of_channels_stays(name: str, multiple: int) -> None:
    given = deadened(load(name).graph, random.Random(name))
    graph = drop_constant_channels(given, multiple)
    assert_same(given, graph, inputs_of(given, 1, 0))
    narrowed = [t for t in graph.tensors() if t.narrowed is not None and t.narrowed.whole.shape[-1] >= 4 * multiple]
    assert all(t.shape[-1] % multiple == 0 for t in narrowed)


def test_nothing_to_drop() -> None:
    graph = load("plain").graph
    assert drop_constant_channels(graph) is graph


def compiled(name: str, adapter: AdapterConfig) -> CompiledModel:
    source = load(name)
    return compile_model(name, source.fingerprint, source.graph, adapter, TrainingConfig())


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapted_layer_keeps_what_it_reads_and_gives(kind: str) -> None:
    saved = ("down", "hidden") if kind == "modules_to_save" else ()
    model = compiled("constant", AdapterConfig(kind, r=2, target_modules="down|hidden", modules_to_save=saved))
    assert model.base is not model.inference and all(t.narrowed is None for t in model.base.tensors())
    adapted = {op.layer for op in model.base.operations if op.name in model.adapted_by}
    assert adapted == ({"stem"} if kind == "input_offset" else {"down", "hidden"})
    for op, base in ((o, b) for o in model.inference.operations for b in model.base.operations if o.name == b.name):
        if op.layer in adapted and kind != "bottleneck":  # which reads and gives only what the layer gives
            assert op.inputs["input"].shape == base.inputs["input"].shape
        if op.layer in adapted and kind != "input_offset":
            assert op.output.shape == base.output.shape
    assert any(t.narrowed is not None for t in model.inference.tensors())
    state = model.fresh_state(3)
    for sample in inputs_of(model.base, 2, 4):
        expected = run_graph(model.base, {model.base.inputs[0].name: sample}, {})[0]
        np.testing.assert_array_equal(run_graph(model.inference, {"input": sample}, dict(state))[0], expected)
    assert model.training is not None
    arguments = {"input": inputs_of(model.base, 1, 5)[0], "label": np.int32(1), "learning_rate": np.float32(0.05)}
    for _ in range(3):
        run_graph(model.training, arguments, state)
    assert any((state[n] != value).any() for n, value in model.fresh_state(3).items())


def test_behind_an_adapter_only_what_is_constant_for_any_goes() -> None:
    model = compiled("constant", AdapterConfig(r=2, target_modules="stem", modules_to_save=()))
    narrowed = {op.layer for op in model.inference.operations if op.output.narrowed is not None}
    assert "stem" not in narrowed and "dw" not in narrowed and "down" in narrowed


def test_dropping_saves_memory() -> None:
    given, source = compiled("constant", AdapterConfig("none")), load("constant")
    weights = [
        sum(t.nbytes for t in graph.tensors() if t.data is not None) for graph in (source.graph, given.inference)
    ]
    assert weights[1] < 0.7 * weights[0]
