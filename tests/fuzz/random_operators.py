"""Random .tflite files of a single operator, from the cases that the operators' own tests draw.

A file has one input; an operator that takes several gets them cut from it and requantised.
"""

from __future__ import annotations

import math

import ai_edge_litert.schema_py_generated as schema
import numpy as np
from cases import CASES
from lowered_nodes import LOWERED
from tflite_builder import Node, build_model, int8_tensor, int32_constant
from weighted_cases import WEIGHTED_CASES

from tinypeft.ir import Tensor

KINDS = (*CASES, *WEIGHTED_CASES, *LOWERED)


def operator_file(rng: np.random.Generator, kind: str) -> bytes:
    """A file with one operator of `kind`, and what its inputs and outputs need around it."""
    while True:
        nodes = draw_nodes(rng, kind)
        computed = {id(t) for node in nodes for t in node.outputs}
        inputs: list[Tensor] = []
        for node in nodes:
            for tensor in node.inputs:
                given = tensor is not None and tensor.data is None and id(tensor) not in computed
                if tensor is not None and given and all(tensor is not t for t in inputs):
                    inputs.append(tensor)
        if len(inputs) == 1:
            return build_model(*nodes)
        if all(tensor.dtype == "int8" for tensor in inputs):
            return build_model(*cut(inputs), *nodes)


def draw_nodes(rng: np.random.Generator, kind: str) -> list[Node]:
    """The nodes of a case."""
    if kind in LOWERED:
        return LOWERED[kind](rng, kind)
    return [CASES[kind](rng, kind=kind) if kind in CASES else WEIGHTED_CASES[kind](rng)]


def cut(inputs: list[Tensor]) -> list[Node]:
    """Operators that compute `inputs` from one vector in the quantisation of the first."""
    first = inputs[0]
    assert first.scale is not None
    joined = int8_tensor("joined", (1, sum(t.size for t in inputs)), first.scale, first.zero_point)
    nodes, begin = [], 0
    for i, tensor in enumerate(inputs):
        assert tensor.scale is not None
        part = int8_tensor(f"part_{i}", (1, tensor.size), first.scale, first.zero_point)
        operands = [joined, int32_constant(f"begin_{i}", [0, begin]), int32_constant(f"size_{i}", [1, tensor.size])]
        nodes.append(Node("SLICE", schema.SliceOptionsT(), operands, [part]))
        begin += tensor.size
        if (tensor.scale[0], tensor.zero_point) != (first.scale[0], first.zero_point):
            scaled = int8_tensor(f"scaled_{i}", part.shape, tensor.scale, tensor.zero_point)
            nodes.append(Node("QUANTIZE", schema.QuantizeOptionsT(), [part], [scaled]))
            part = scaled
        nodes.append(shaped(part, tensor))
    return nodes


def shaped(x: Tensor, y: Tensor) -> Node:
    """A view of `x` as `y`."""
    if not y.shape:  # the shape of a scalar cannot be written into the file as a constant
        return Node("SQUEEZE", schema.SqueezeOptionsT(squeezeDims=[]), [x], [y])
    assert math.prod(x.shape) == math.prod(y.shape)
    constant = int32_constant(f"{y.name}_shape", y.shape)
    return Node("RESHAPE", schema.ReshapeOptionsT(newShape=list(y.shape)), [x, constant], [y])
