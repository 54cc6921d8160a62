"""Rewriting .tflite files: LiteRT and the front end run the result, and only what was named has changed."""

from __future__ import annotations

from pathlib import Path

import ai_edge_litert.schema_py_generated as schema
import numpy as np
import pytest
import small_models
from small_models import Net
from tflite_builder import Node, build_model, conv_2d, fully_connected, int8_tensor, int32_constant

from tinypeft.errors import AdapterError, ModelError
from tinypeft.exchange.tflite_rewrite import Replacement, readers, rewrite_tflite
from tinypeft.frontend import flatfile, read_tflite
from tinypeft.frontend.flatfile import FileOperator
from tinypeft.interpreter import run_graph
from tinypeft.oracle import LiteRtOracle


def samples(tflite: bytes, count: int = 4) -> np.ndarray:
    details = flatfile.parse(tflite).input
    rng = np.random.default_rng(7)
    x = rng.normal(0, 1, (count, *details.shape[1:]))
    return x.astype(np.float32) if details.type == "FLOAT32" else (x * 40).clip(-128, 127).astype(np.int8)


def outputs(tflite: bytes) -> np.ndarray:
    return LiteRtOracle(tflite).outputs(samples(tflite))


def interpreted(tflite: bytes) -> np.ndarray:
    graph = read_tflite(tflite)
    return np.concatenate([run_graph(graph, {graph.inputs[0].name: x}, {})[0] for x in samples(tflite)])


def operator(tflite: bytes, index: int) -> FileOperator:
    return flatfile.parse(tflite).operators[index]


def layer(tflite: bytes, kind: str) -> FileOperator:
    return next(o for o in flatfile.parse(tflite).operators if o.kind == kind)


def names(tflite: bytes) -> list[tuple[str, str]]:
    return [(op.name, op.layer) for op in read_tflite(tflite).operations]


@pytest.mark.parametrize("name", small_models.MODELS)
def test_without_replacements_the_model_is_the_same(name: str) -> None:
    tflite = small_models.MODELS[name]()
    copy = rewrite_tflite(tflite)
    np.testing.assert_array_equal(outputs(copy), outputs(tflite))
    assert names(copy) == names(tflite)
    assert rewrite_tflite(copy) == copy


def test_a_converters_file_keeps_its_metadata_and_signatures(shared_data: Path) -> None:
    tflite = sorted((shared_data / "fsdd_loso").glob("*.tflite"))[0].read_bytes()
    copy = rewrite_tflite(tflite)
    np.testing.assert_array_equal(outputs(copy), outputs(tflite))
    before, after = (schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(bytearray(f), 0)) for f in (tflite, copy))
    assert [m.name for m in after.metadata] == [m.name for m in before.metadata] != []
    for old, new in zip(before.metadata, after.metadata, strict=True):
        assert bytes(before.buffers[old.buffer].data) == bytes(after.buffers[new.buffer].data)
    assert [s.signatureKey for s in after.signatureDefs] == [s.signatureKey for s in before.signatureDefs] != []
    assert len(copy) < len(tflite) * 1.02


def test_constants_lie_at_multiples_of_16_bytes() -> None:
    tflite = rewrite_tflite(small_models.MODELS["plain"]())
    model = schema.Model.GetRootAsModel(bytearray(tflite), 0)
    buffers = [model.Buffers(i) for i in range(model.BuffersLength())]
    places = [b._tab.Vector(b._tab.Offset(4)) for b in buffers if b.DataLength()]
    assert len(places) >= 9 and all(place % 16 == 0 for place in places)


@pytest.mark.parametrize("kind", ["CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"])
def test_new_weights_and_scales_count(kind: str) -> None:
    """LiteRT's outputs of the file equal those of our interpreter, which reads the new constants itself."""
    tflite = small_models.MODELS["plain"]()
    _, filters, bias = layer(tflite, kind).inputs
    x = layer(tflite, kind).inputs[0]
    assert x is not None and filters is not None and bias is not None
    rng = np.random.default_rng(1)
    scale = (filters.scale * rng.uniform(0.5, 2, filters.scale.size)).astype(np.float32)
    kernel = rng.integers(-127, 128, filters.shape).astype(np.int8)
    offset = rng.integers(-3000, 3000, bias.shape).astype(np.int32)
    rewritten = rewrite_tflite(
        tflite, {filters.index: Replacement(kernel, scale), bias.index: Replacement(offset, x.scale * scale)}
    )
    after = layer(rewritten, kind)
    assert after.inputs[1] is not None and after.inputs[1].raw == kernel.tobytes()
    np.testing.assert_array_equal(after.inputs[1].scale, scale)
    assert names(rewritten) == names(tflite)
    assert not np.array_equal(outputs(rewritten), outputs(tflite))
    np.testing.assert_array_equal(interpreted(rewritten), outputs(rewritten))


@pytest.mark.parametrize("position_is_written", [True, False])
def test_a_layer_gets_a_bias(position_is_written: bool) -> None:
    """FULLY_CONNECTED has an input -1 for it, a convolution an input less, with which LiteRT does not run it."""
    x, y = int8_tensor("x", (1, 2, 2, 4), 0.02, 3), int8_tensor("y", (1, 2, 2, 3), 0.05, -4)
    rng = np.random.default_rng(2)
    weights = rng.integers(-127, 128, (3, 4))
    if position_is_written:
        x, y = int8_tensor("x", (1, 4), 0.02, 3), int8_tensor("y", (1, 3), 0.05, -4)
        node = fully_connected(x, int8_tensor("m/head/MatMul", (3, 4), [0.01, 0.02, 0.03], 0, weights), None, y)
    else:
        filters = int8_tensor("m/head/Conv2D", (3, 1, 1, 4), [0.01, 0.02, 0.03], 0, weights)
        node = conv_2d(x, filters, None, y, strideH=1, strideW=1)
    tflite = build_model(node)
    bias = np.array([500, -400, 300], np.int32)
    scale = (np.float32(0.02) * np.array([0.01, 0.02, 0.03], np.float32)).astype(np.float32)
    rewritten = rewrite_tflite(tflite, operands={(0, 2): Replacement(bias, scale)})
    assert names(rewritten) == names(tflite)
    read = read_tflite(rewritten).operations[0].inputs["bias"]
    np.testing.assert_array_equal(read.data, bias)
    assert not np.array_equal(interpreted(rewritten), interpreted(tflite))
    np.testing.assert_array_equal(interpreted(rewritten), outputs(rewritten))
    with pytest.raises(AdapterError, match="operator 0 .* has no bias: a new one needs data and scale"):
        rewrite_tflite(tflite, operands={(0, 2): Replacement(bias)})


@pytest.mark.parametrize("name", ["CONV_2D", "FULLY_CONNECTED"])
def test_one_scale_becomes_one_a_channel(name: str) -> None:
    """The same real weights, finer: scales go down as values go up, and the outputs stay but for the rounding."""
    rng = np.random.default_rng(3)
    channels, shape = 3, (1, 2, 2, 4) if name == "CONV_2D" else (1, 4)
    x, y = int8_tensor("x", shape, 0.5, 3), int8_tensor("y", (*shape[:-1], channels), 0.5, -4)
    values = rng.integers(-20, 21, (channels, *((1, 1) if name == "CONV_2D" else ()), 4))
    filters = int8_tensor("m/a/w", values.shape, 0.25, 0, values)
    bias = int32_constant("m/a/bias", rng.integers(-99, 99, channels), 0.125)
    if name == "CONV_2D":
        tflite = build_model(conv_2d(x, filters, bias, y, strideH=1, strideW=1))
    else:
        tflite = build_model(fully_connected(x, filters, bias, y))
    factors = np.array([1, 2, 4])
    scale = (0.25 / factors).astype(np.float32)
    finer = (values * factors.reshape(-1, *[1] * (values.ndim - 1))).astype(np.int8)
    assert bias.data is not None
    new_bias = Replacement((bias.data * factors).astype(np.int32), (np.float32(0.5) * scale).astype(np.float32))
    rewritten = rewrite_tflite(tflite, operands={(0, 1): Replacement(finer, scale), (0, 2): new_bias})
    weights = operator(rewritten, 0).inputs[1]
    assert weights is not None and weights.scale.size == 3 and weights.quantized_dimension == 0
    np.testing.assert_allclose(outputs(rewritten).astype(int), outputs(tflite).astype(int), atol=1)
    np.testing.assert_array_equal(interpreted(rewritten), outputs(rewritten))


def shared_everything(*, one_buffer: bool) -> bytes:
    """Two dense layers of equal weights: one tensor, or two tensors of one buffer."""
    rng = np.random.default_rng(4)
    values, bias = rng.integers(-127, 128, (4, 4)), rng.integers(-99, 99, 4)
    x, h, y = (int8_tensor(n, (1, 4), 0.02, 0) for n in "xhy")
    first = int8_tensor("m/first/MatMul", (4, 4), [0.01] * 4, 0, values)
    second = int8_tensor("m/second/MatMul", (4, 4), [0.01] * 4, 0, values) if one_buffer else first
    offsets = int32_constant("m/bias", bias, [np.float32(0.02) * np.float32(0.01)] * 4)
    tflite = build_model(fully_connected(x, first, offsets, h), fully_connected(h, second, offsets, y))
    if not one_buffer:
        return tflite
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(bytearray(tflite), 0))
    tensors = {t.name: t for t in model.subgraphs[0].tensors}
    tensors[b"m/second/MatMul"].buffer = tensors[b"m/first/MatMul"].buffer
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_others_of_a_shared_buffer_keep_their_values() -> None:
    tflite = shared_everything(one_buffer=True)
    source = operator(tflite, 0).inputs[1]
    assert source is not None
    rewritten = rewrite_tflite(tflite, {source.index: Replacement(np.ones((4, 4), np.int8))})
    changed, kept = (operator(rewritten, i).inputs[1] for i in range(2))
    assert changed is not None and kept is not None
    assert changed.raw == bytes([1] * 16) and kept.raw == source.raw
    np.testing.assert_array_equal(interpreted(rewritten), outputs(rewritten))


def test_a_shared_tensor_changes_for_all_an_operand_for_one() -> None:
    tflite = shared_everything(one_buffer=False)
    source = operator(tflite, 0).inputs[1]
    assert source is not None and readers(tflite, source.index) == [(0, 1), (1, 1)]
    ones = Replacement(np.ones((4, 4), np.int8))
    everywhere = rewrite_tflite(tflite, {source.index: ones})
    assert [operator(everywhere, i).inputs[1].raw for i in range(2)] == [bytes([1] * 16)] * 2  # type: ignore[union-attr]
    alone = rewrite_tflite(tflite, operands={(1, 1): ones})
    assert [operator(alone, i).inputs[1].raw for i in range(2)] == [source.raw, bytes([1] * 16)]  # type: ignore[union-attr]
    np.testing.assert_array_equal(interpreted(alone), outputs(alone))
    np.testing.assert_array_equal(outputs(alone), outputs(rewrite_tflite(alone)))


def test_a_classifier_of_other_classes() -> None:
    tflite = small_models.MODELS["plain"]()
    head = layer(tflite, "FULLY_CONNECTED")
    x, filters, bias = head.inputs
    assert x is not None and filters is not None and bias is not None
    rng = np.random.default_rng(5)
    kernel, scale = rng.integers(-127, 128, (7, filters.shape[1])).astype(np.int8), np.full(7, 0.004, np.float32)
    replacements = {
        filters.index: Replacement(kernel, scale),
        bias.index: Replacement(np.arange(7, dtype=np.int32) * 100, x.scale * scale),
        head.outputs[0].index: Replacement(shape=(1, 7), scale=np.float32([0.3]), zero_point=-9),
    }
    rewritten = rewrite_tflite(tflite, replacements)
    assert outputs(rewritten).shape == (4, 7)
    assert layer(rewritten, "FULLY_CONNECTED").outputs[0].zero_point.tolist() == [-9]
    np.testing.assert_array_equal(interpreted(rewritten), outputs(rewritten))
    del replacements[head.outputs[0].index]
    with pytest.raises(AdapterError, match="filter .* \\(7, 8\\): its output has 5 channels"):
        rewrite_tflite(tflite, replacements)


def test_replaced_values_leave_the_file() -> None:
    tflite = small_models.MODELS["mlp"]()
    first = operator(tflite, 0).inputs[1]
    assert first is not None and first.raw is not None and first.raw in tflite
    rewritten = rewrite_tflite(tflite, {first.index: Replacement(np.zeros(first.shape, np.int8))})
    assert first.raw not in rewritten
    assert len(rewritten) <= len(rewrite_tflite(tflite))


def mlp_parts() -> tuple[bytes, int, int, int]:
    """A model, and its first layer's filter (16,20), bias and output."""
    tflite = small_models.MODELS["mlp"]()
    first = operator(tflite, 0)
    assert first.inputs[1] is not None and first.inputs[2] is not None
    return tflite, first.inputs[1].index, first.inputs[2].index, first.outputs[0].index


def test_what_does_not_suit_is_refused() -> None:
    tflite, filters, bias, output = mlp_parts()
    kernel = np.zeros((16, 20), np.int8)
    refused = [
        ({99: Replacement(kernel)}, "has 1[0-9] tensors, 99 is none of them"),
        ({filters: Replacement(kernel.astype(np.int32))}, "tensor m/first/MatMul_k is int8, its new values are int32"),
        ({filters: Replacement(kernel, np.ones(3, np.float32))}, "gets 3 scales for 16 channels"),
        ({filters: Replacement(kernel, np.zeros(16, np.float32))}, "not positive and finite"),
        ({filters: Replacement(kernel, np.full(16, 0.5, np.float32))}, "bias has the scales .* filter give 0.01 to"),
        ({bias: Replacement(np.zeros(4, np.int32))}, r"its bias has the shape \(4,\)"),
        ({output: Replacement(np.zeros((1, 16), np.int8))}, "is computed, it cannot hold values"),
    ]
    for replacements, message in refused:
        with pytest.raises(AdapterError, match=message):
            rewrite_tflite(tflite, replacements)
    with pytest.raises(AdapterError, match="operand 0 of operator 0 is no filter and no bias .*: 0 FULLY_CONNECTED, 1"):
        rewrite_tflite(tflite, operands={(0, 0): Replacement(kernel)})
    with pytest.raises(ModelError, match="TFL3"):
        rewrite_tflite(b"no model at all")


def test_a_filter_of_two_layouts_is_replaced_by_operand() -> None:
    """A tensor that is the filter of a depthwise layer and of a convolution has its channels on two axes."""
    net = Net((1, 4, 4, 1), 6)
    values, scale = net.rng.integers(-127, 128, (1, 3, 3, 1)), 0.01
    filters = int8_tensor("m/both/w", (1, 3, 3, 1), scale, 0, values)
    h, y = (int8_tensor(n, (1, 4, 4, 1), 0.05, 0) for n in "hy")
    depthwise = schema.DepthwiseConv2DOptionsT(strideH=1, strideW=1, depthMultiplier=1)
    bias = int32_constant("m/both/bias", [7], np.float32(0.02) * np.float32(0.01))
    tflite = build_model(
        conv_2d(net.last, filters, bias, h, strideH=1, strideW=1),
        Node("DEPTHWISE_CONV_2D", depthwise, [h, filters], [y]),
    )
    index = operator(tflite, 0).inputs[1].index  # type: ignore[union-attr]
    ones = Replacement(np.ones((1, 3, 3, 1), np.int8))
    with pytest.raises(AdapterError, match="filter of depthwise and other layers"):
        rewrite_tflite(tflite, {index: ones})
    rewritten = rewrite_tflite(tflite, operands={(0, 1): ones, (1, 1): ones})
    np.testing.assert_array_equal(interpreted(rewritten), outputs(rewritten))
