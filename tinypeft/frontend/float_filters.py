"""The float filters behind a quantised graph: it and the same model as a float .tflite in, filters by name out."""

from __future__ import annotations

import numpy as np

from tinypeft.errors import ModelError
from tinypeft.frontend.flatfile import FileOperator, parse
from tinypeft.ir import Graph

_KINDS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")


def read_float_filters(graph: Graph, float_tflite: bytes) -> dict[str, np.ndarray]:
    """Operation name -> float32 filter, in the layout of the operation's int8 one.

    The converter keeps the order of layers, so that the n-th here is the n-th there. ModelError where kinds or shapes
    say otherwise.
    """
    quantised = [op for op in graph.operations if op.kind in _KINDS]
    floating = [operator for operator in parse(float_tflite).operators if operator.kind in _KINDS]
    filters = [_filter(operator) for operator in floating]
    expected = [(op.kind, op.inputs["filter"].shape) for op in quantised]
    found = [(operator.kind, values.shape) for operator, values in zip(floating, filters, strict=True)]
    if found != expected:
        raise ModelError(
            f"the converter gives {len(found)} layers with weights in float and {len(expected)} in int8, "
            "of which some differ in kind or shape",
            "use another --init-lora-weights than loftq",
        )
    return {op.name: values for op, values in zip(quantised, filters, strict=True)}


def _filter(operator: FileOperator) -> np.ndarray:
    tensor = operator.inputs[1]
    if tensor is None or tensor.raw is None or tensor.type != "FLOAT32":
        raise ModelError(
            f"the weights of {operator.kind} {operator.index} are no float constants",
            "use another --init-lora-weights than loftq",
        )
    return np.frombuffer(tensor.raw, "<f4").reshape(tensor.shape)
