"""Operators that are lowered to others: whole files, read and interpreted, against LiteRT; and what is refused."""

from __future__ import annotations

from typing import Any

import ai_edge_litert.schema_py_generated as schema
import numpy as np
import pytest
from kernel_harness import compare_kernel, compile_operations
from lowered_nodes import LOWERED, simple
from random_values import random_int8
from tflite_builder import Node, build_model, int8_tensor, int32_constant

from tinypeft.errors import ModelError
from tinypeft.frontend import read_tflite
from tinypeft.frontend.lowering import LOWERINGS
from tinypeft.interpreter import run_graph
from tinypeft.ir import Graph, Operation, Tensor
from tinypeft.ops import OPS
from tinypeft.ops.base import Value
from tinypeft.oracle import LiteRtOracle

COUNT = 150


def values_of(graph: Graph, sample: np.ndarray) -> dict[str, Value]:
    """Every tensor's value by its name."""
    values: dict[str, Value] = {graph.inputs[0].name: sample}
    run_graph(graph, dict(values), {}, lambda op, operand, tensor, value: values.update({tensor.name: value}))
    return values


def compare_with_litert(data: bytes, graph: Graph, sample: np.ndarray) -> tuple[dict[str, Value], int]:
    """(values by name, how many tensors were compared): each that LiteRT computes equals ours."""
    values = values_of(graph, sample)
    ours = {t.source: values[t.name] for op in graph.operations for t in op.outputs.values() if t.source >= 0}
    layers = LiteRtOracle(data).layers(sample)
    assert set(ours) == set(layers)
    for index, expected in layers.items():
        assert ours[index].dtype == expected.dtype
        np.testing.assert_array_equal(ours[index], expected, f"tensor {index} of {graph.operations}")
    return values, len(layers)


def test_every_lowering_is_tested() -> None:
    assert set(LOWERED) == set(LOWERINGS)


@pytest.mark.parametrize("kind", LOWERED)
def test_equals_litert_at_every_tensor(kind: str) -> None:
    rng = np.random.default_rng(1)
    operations: list[Operation] = []
    operands: list[dict[str, Value]] = []
    kinds: set[str] = set()
    compared = 0
    for i in range(COUNT):
        nodes = LOWERED[kind](rng, kind)
        data = build_model(*nodes)
        graph = read_tflite(data)
        assert len(graph.inputs) == len(graph.outputs) == 1
        if len(nodes) == 1:
            kinds |= {op.kind for op in graph.operations}
        values, count = compare_with_litert(data, graph, random_int8(rng, graph.inputs[0].shape))
        compared += count
        for op in graph.operations:
            operands.append({n: t.data if t.data is not None else values[t.name] for n, t in op.inputs.items()})
            op.name = f"model{i}_{op.name}"
            operations.append(op)
    assert compared >= COUNT
    assert kinds <= set(LOWERINGS[kind].kinds)
    for compiled, each in zip(compile_operations(operations), operands, strict=True):
        compare_kernel(compiled, each)


def test_intermediate_tensors_keep_the_quantisation() -> None:
    node = simple("SPACE_TO_DEPTH", schema.SpaceToDepthOptionsT(blockSize=2), [], (1, 4, 4, 3), (1, 2, 2, 12))
    graph = read_tflite(build_model(node))
    assert [op.kind for op in graph.operations] == ["RESHAPE", "TRANSPOSE", "RESHAPE"]
    assert [op.name for op in graph.operations][-1] == "space_to_depth_0"
    for op in graph.operations:
        assert op.output.scale is not None and op.output.scale[0] == np.float32(0.1)
    assert [op.output.source >= 0 for op in graph.operations] == [False, False, True]


def test_a_packed_constant_needs_no_operation() -> None:
    constant = int8_tensor("c", (1, 3), 0.1, data=[1, 2, 3])
    node = simple("PACK", schema.PackOptionsT(valuesCount=2, axis=2), [constant], (1, 3), (1, 3, 2))
    graph = read_tflite(build_model(node))
    assert [op.kind for op in graph.operations] == ["RESHAPE", "CONCATENATION"]
    values, _ = compare_with_litert(build_model(node), graph, np.array([[4, 5, 6]], np.int8))
    np.testing.assert_array_equal(values[graph.outputs[0].name], [[[4, 1], [5, 2], [6, 3]]])


def test_a_tensor_may_be_concatenated_with_itself() -> None:
    x, y = int8_tensor("x", (1, 2, 3), 0.1), int8_tensor("y", (1, 2, 9), 0.1)
    data = build_model(Node("CONCATENATION", schema.ConcatenationOptionsT(axis=2), [x, x, x], [y]))
    graph = read_tflite(data)
    sample = np.arange(6, dtype=np.int8).reshape(1, 2, 3)
    values, _ = compare_with_litert(data, graph, sample)
    assert graph.operations[0].op.inside(graph.operations[0]) == {}
    np.testing.assert_array_equal(values[graph.outputs[0].name], np.concatenate([sample] * 3, axis=2))


def _constant(values: Any) -> Tensor:
    return int32_constant("c", values)


_IMAGE, _SLICE = (1, 4, 4, 1), schema.SliceOptionsT()
_S2B, _B2S = schema.SpaceToBatchNDOptionsT(), schema.BatchToSpaceNDOptionsT()
_RUN_TIME = int8_tensor("b", (2,), 0.1)
#: part of the message -> the node
REFUSED = {
    "does not suit the shape": simple("SLICE", _SLICE, [_constant([0]), _constant([1])], (1, 4), (1, 1)),
    "does not fit": simple("SLICE", _SLICE, [_constant([0, 3]), _constant([1, 2])], (1, 4), (1, 2)),
    "begin of a slice must be constant": simple("SLICE", _SLICE, [_RUN_TIME, _constant([1, 1])], (1, 4), (1, 1)),
    "not made of blocks of 3": simple("SPACE_TO_DEPTH", schema.SpaceToDepthOptionsT(3), [], _IMAGE, (1, 1, 1, 9)),
    "1 channels": simple("DEPTH_TO_SPACE", schema.DepthToSpaceOptionsT(2), [], _IMAGE, (1, 8, 8, 1)),
    r"is not \(N, H, W, C\)": simple("DEPTH_TO_SPACE", schema.DepthToSpaceOptionsT(2), [], (1, 2, 4), (1, 4, 2)),
    r"not made of blocks of \(3,\)": simple(
        "SPACE_TO_BATCH_ND", _S2B, [_constant([3]), _constant([[0, 0]])], (1, 4, 1), (3, 1, 1)
    ),
    "batch of 3": simple("BATCH_TO_SPACE_ND", _B2S, [_constant([2]), _constant([[0, 0]])], (3, 2, 1), (1, 4, 1)),
    "do not suit": simple("BATCH_TO_SPACE_ND", _B2S, [_constant([2]), _constant([[0, -1]])], (2, 2, 1), (1, 4, 1)),
    "larger than the shape": simple(
        "MIRROR_PAD", schema.MirrorPadOptionsT(0), [_constant([[0, 0], [3, 0]])], (1, 3), (1, 6)
    ),
    "axis 4 of 2 dimensions": simple("UNPACK", schema.UnpackOptionsT(1, 4), [], (1, 3), (3,)),
    "into 1 outputs": simple("UNPACK", schema.UnpackOptionsT(1, 1), [], (1, 3), (1,)),
    "a resize of": simple(
        "RESIZE_NEAREST_NEIGHBOR", schema.ResizeNearestNeighborOptionsT(), [_constant([2, 2])], (1, 3, 3), (1, 2, 2)
    ),
    "both align_corners": simple(
        "RESIZE_NEAREST_NEIGHBOR",
        schema.ResizeNearestNeighborOptionsT(alignCorners=True, halfPixelCenters=True),
        [_constant([2, 2])],
        _IMAGE,
        (1, 2, 2, 1),
    ),
    "a change of": simple("SQUEEZE", schema.SqueezeOptionsT(), [], (1, 3), (1, 4)),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_not_supported_is_refused(message: str) -> None:
    node = REFUSED[message]
    with pytest.raises(ModelError, match=message):
        for each in LOWERINGS[node.kind].lower(node.options, list(node.inputs), list(node.outputs)):
            operation = Operation(OPS[each.kind], "op", each.inputs, each.outputs, each.attributes)
            if complaint := operation.op.check(operation):
                raise ModelError(complaint)
