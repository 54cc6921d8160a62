"""SPACE_TO_BATCH_ND, convolution, BATCH_TO_SPACE_ND: one dilated convolution that gives LiteRT's bits, or a refusal."""

from __future__ import annotations

from typing import Any

import ai_edge_litert.schema_py_generated as schema
import numpy as np
import pytest
from kernel_harness import compare_kernel, compile_operations
from tflite_builder import Node, build_model, conv_2d, depthwise_conv_2d, int8_tensor, int32_constant, run_reference

from tinypeft.errors import ModelError
from tinypeft.frontend import load_tflite
from tinypeft.interpreter import run_graph
from tinypeft.ir import Graph, Tensor


def _triple(
    rng: np.random.Generator,
    size: tuple[int, ...],
    block: tuple[int, ...],
    pads: list[list[int]],
    crops: list[list[int]],
    kernel: tuple[int, int],
    *,
    depthwise: bool = False,
    padding: int = 1,
    dilation: int = 1,
    stride: int = 1,
    rescale: float = 1.0,
) -> list[Node]:
    """The operators for an image (1,*size,C), or, with one extent, for a sequence (1,T,C) with views around."""
    channels, filters, batch = 3, 6, int(np.prod(block))
    zero_point = int(rng.choice([-128, 127, 0, 13]))
    x = int8_tensor("x", (1, *size, channels), 0.05, zero_point)
    inner_size = tuple((n + sum(p)) // b for n, p, b in zip(size, pads, block, strict=True))
    inner = int8_tensor("inner", (batch, *inner_size, channels), 0.05 * rescale, zero_point)
    nodes = [Node("SPACE_TO_BATCH_ND", schema.SpaceToBatchNDOptionsT(), _constants(x, block, pads), [inner])]
    flat = len(size) == 1
    if flat:
        high = int8_tensor("high", (batch, 1, *inner_size, channels), 0.05 * rescale, zero_point)
        nodes.append(Node("EXPAND_DIMS", schema.ExpandDimsOptionsT(), [inner, int32_constant("axis", 1)], [high]))
        inner = high
    extents = tuple((k - 1) * dilation for k in kernel)
    taken = (0, 0) if padding == 0 else extents
    out_size = tuple((n - e - 1) // stride + 1 for n, e in zip(inner.shape[1:3], taken, strict=True))
    y_inner = int8_tensor("y_inner", (batch, *out_size, filters), 0.08, -3)
    shape = (1, *kernel, filters) if depthwise else (filters, *kernel, channels)
    scales = rng.uniform(0.002, 0.01, filters).astype(np.float32)
    w = int8_tensor("m/layer/kernel", shape, scales, 0, rng.integers(-127, 128, shape))
    bias = int32_constant("b", rng.integers(-999, 999, filters), np.float32(0.05 * rescale) * scales)
    options = {
        "padding": padding, "strideH": stride, "strideW": stride,
        "dilationHFactor": dilation, "dilationWFactor": dilation, "fusedActivationFunction": int(rng.choice([0, 1])),
    }  # fmt: skip
    if depthwise:
        nodes.append(depthwise_conv_2d(inner, w, bias, y_inner, depthMultiplier=2, **options))
    else:
        nodes.append(conv_2d(inner, w, bias, y_inner, **options))
    if flat:
        low = int8_tensor("low", (batch, out_size[1], filters), 0.08, -3)
        nodes.append(Node("SQUEEZE", schema.SqueezeOptionsT(squeezeDims=[1]), [y_inner], [low]))
        y_inner, out_size = low, out_size[1:]
    out = tuple(n * b - sum(c) for n, b, c in zip(out_size, block, crops, strict=True))
    y = int8_tensor("m/layer/y", (1, *out, filters), 0.08, -3)
    nodes.append(Node("BATCH_TO_SPACE_ND", schema.BatchToSpaceNDOptionsT(), _constants(y_inner, block, crops), [y]))
    return nodes


def _constants(x: Tensor, block: tuple[int, ...], amounts: list[list[int]]) -> list[Tensor | None]:
    return [x, int32_constant("block", block), int32_constant("amounts", amounts)]


def _graph(nodes: list[Node]) -> Graph:
    return load_tflite("m", build_model(*nodes), {}).graph


def _run(graph: Graph, x: np.ndarray) -> np.ndarray:
    return run_graph(graph, {graph.inputs[0].name: x}, {})[0]


def _random(rng: np.random.Generator, **fixed: Any) -> list[Node]:
    """Random sizes; pads that fill whole blocks, of either side, and crops of the result."""
    dimensions = int(rng.choice([1, 2, 2]))
    block = tuple(int(n) for n in rng.integers(1, 4, dimensions))
    kernel = (1, int(rng.integers(1, 4))) if dimensions == 1 else tuple(int(n) for n in rng.integers(1, 4, 2))
    dilation, padding = int(rng.choice([1, 1, 2])), int(rng.integers(2))
    size, pads, crops = [], [], []
    for step, taps in zip(block, kernel[-dimensions:], strict=True):
        inner = (taps - 1) * dilation + int(rng.integers(1, 6))
        before, behind = int(rng.integers(0, step * taps)), int(rng.integers(0, step))
        extent = max(inner * step - before - behind, 1)
        size.append(extent)
        pads.append([before, inner * step - extent - before])
        if pads[-1][1] < 0:
            pads[-1] = [inner * step - extent, 0]
        cropped = int(rng.integers(0, step))
        crops.append([cropped, int(rng.integers(0, step - cropped))])
    options = {"depthwise": bool(rng.integers(2)), "padding": padding, "dilation": dilation} | fixed
    return _triple(rng, tuple(size), block, pads, crops, kernel, **options)  # type: ignore[arg-type]


def test_folded_convolutions_equal_litert() -> None:
    rng = np.random.default_rng(1)
    kinds, operations = set(), []
    for _ in range(150):
        nodes = _random(rng)
        graph = _graph(nodes)
        weighted = [op for op in graph.operations if op.kind != "RESHAPE"]
        assert len(weighted) == 1 and len(graph.operations) in (1, 3)
        kinds.add((weighted[0].kind, len(graph.operations)))
        assert weighted[0].layer == "layer"
        x = rng.integers(-128, 128, graph.inputs[0].shape).astype(np.int8)
        (expected,) = run_reference(build_model(*nodes), x)
        np.testing.assert_array_equal(_run(graph, x), expected, str(weighted[0].attributes))
        operations.append(weighted[0])
    assert len(kinds) == 4
    negative = 0
    for compiled in compile_operations(operations):
        negative += compiled.op.attributes["window"].pad_left < 0
        values = {name: t.data for name, t in compiled.op.inputs.items() if t.data is not None}
        values["input"] = rng.integers(-128, 128, compiled.op.inputs["input"].shape).astype(np.int8)
        compare_kernel(compiled, values)
    assert negative > 10


def test_padding_may_be_negative_or_beyond_the_kernel() -> None:
    """Crops larger than the pads leave the first rows out; pads larger than the window's reach give rows of bias."""
    rng = np.random.default_rng(2)
    for pads, crops in (([[0, 1], [0, 0]], [[2, 0], [1, 1]]), ([[6, 7], [4, 4]], [[0, 0], [0, 0]])):
        for depthwise in (False, True):
            nodes = _triple(rng, (5, 6), (2, 2), pads, crops, (2, 2), depthwise=depthwise)
            graph = _graph(nodes)
            window = graph.operations[0].attributes["window"]
            assert window.pad_top == pads[0][0] - crops[0][0] and window.dilation_h == 2
            x = rng.integers(-128, 128, graph.inputs[0].shape).astype(np.int8)
            np.testing.assert_array_equal(_run(graph, x), run_reference(build_model(*nodes), x)[0])


def test_what_else_reads_the_blocks_keeps_them() -> None:
    """Two convolutions of one SPACE_TO_BATCH_ND: both are folded, and nothing is left of it."""
    rng = np.random.default_rng(3)
    first = _triple(rng, (6, 6), (2, 2), [[2, 2], [2, 2]], [[0, 0], [0, 0]], (3, 3))
    second = _triple(rng, (6, 6), (2, 2), [[2, 2], [2, 2]], [[0, 0], [0, 0]], (3, 3))
    zero_point = first[0].inputs[0].zero_point  # type: ignore[union-attr]
    second[1].inputs = [first[0].outputs[0], *second[1].inputs[1:]]
    y = int8_tensor("sum", first[2].outputs[0].shape, 0.1, zero_point)
    join = Node("ADD", schema.AddOptionsT(), [first[2].outputs[0], second[2].outputs[0]], [y])
    nodes = [*first, *second[1:], join]
    graph = _graph(nodes)
    assert [op.kind for op in graph.operations] == ["CONV_2D", "CONV_2D", "ADD"]
    x = rng.integers(-128, 128, graph.inputs[0].shape).astype(np.int8)
    np.testing.assert_array_equal(_run(graph, x), run_reference(build_model(*nodes), x)[0])


@pytest.mark.parametrize("change", [{"stride": 2}, {"rescale": 2.0}])
def test_what_is_not_exact_is_refused(change: dict[str, Any]) -> None:
    """A strided convolution of the blocks is no dilated one; nor may its scale change on the way."""
    rng = np.random.default_rng(4)
    nodes = _triple(rng, (6, 6), (2, 2), [[2, 2], [2, 2]], [[0, 0], [0, 0]], (3, 3), **change)
    with pytest.raises(ModelError, match="layer"):
        _graph(nodes)
