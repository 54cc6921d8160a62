"""Forms of operators that are not supported are refused in one sentence that says what is wrong."""

from __future__ import annotations

import ai_edge_litert.schema_py_generated as schema
import numpy as np
import pytest
from tflite_builder import Node, conv_2d, float_tensor, int8_tensor, int32_constant, transpose_conv

from tinypeft.errors import ModelError
from tinypeft.ir import Tensor
from tinypeft.ops.activation import activation_range


def _x(*shape: int, scale: float = 0.1) -> Tensor:
    return int8_tensor("x", shape, scale)


def _pool(batch: int = 1, **options: int) -> Node:
    default = {"padding": 1, "strideH": 1, "strideW": 1, "filterHeight": 2, "filterWidth": 2}
    return Node("MAX_POOL_2D", schema.Pool2DOptionsT(**(default | options)), [_x(batch, 4, 4, 1)], [_x(batch, 3, 3, 1)])


def _conv(x: tuple[int, ...], filters: tuple[int, ...]) -> Node:
    w = int8_tensor("w", filters, np.full(filters[0], 0.1), 0, np.zeros(filters))
    return conv_2d(_x(*x), w, None, _x(1, 4, 4, filters[0]), strideH=1, strideW=1)


def _transposed(size: int, channels: int = 2) -> Node:
    w = int8_tensor("w", (3, 3, 3, channels), np.full(3, 0.1), 0, np.zeros((3, 3, 3, channels)))
    return transpose_conv(_x(1, 4, 4, 2), w, None, _x(1, size, size, 3), strideH=2, strideW=2)


REFUSED = {
    "fused activation TANH": _pool(fusedActivationFunction=4),
    r"\(1, H, W, C\)": _pool(batch=2),
    "does not fit": _pool(filterHeight=5),
    "not all axes": Node("MEAN", schema.ReducerOptionsT(), [_x(1, 4, 2), int32_constant("axes", [3])], [_x(1, 4)]),
    "is not supported": Node(
        "REDUCE_MAX", schema.ReducerOptionsT(), [_x(*[2] * 8), int32_constant("axes", [0, 2, 4, 6])], [_x(*[2] * 4)]
    ),
    "into groups": _conv((1, 4, 4, 6), (4, 1, 1, 4)),
    "not 4x4": _transposed(12),
    "over an input": _transposed(8, channels=3),
    "must be constant": Node("MEAN", schema.ReducerOptionsT(), [_x(1, 4, 4, 2), _x(2)], [_x(1, 2)]),
    "padding of": Node("PAD", schema.PadOptionsT(), [_x(1, 2), int32_constant("p", [[1, 0], [0, -1]])], [_x(2, 1)]),
    "supported is int8": Node("SOFTMAX", schema.SoftmaxOptionsT(beta=1), [float_tensor("x", (1, 2))], [_x(1, 2)]),
    "of int32": Node("QUANTIZE", schema.QuantizeOptionsT(), [int32_constant("x", [1])], [_x(1)]),
    "one scale": Node(
        "DEQUANTIZE", schema.DequantizeOptionsT(), [int8_tensor("x", (2,), [1, 2])], [float_tensor("y", (2,))]
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_from_tflite_refuses(message: str) -> None:
    with pytest.raises(ModelError, match=message):
        REFUSED[message].operation()


def test_check_refuses_different_scales() -> None:
    pool = _pool()
    pool.outputs[0].scale = np.array([0.2], np.float32)
    operation = pool.operation()
    assert "must be the same" in str(operation.op.check(operation))
    small = Node("ADD", schema.AddOptionsT(), [_x(1, 2), _x(1, 2)], [_x(1, 2, scale=1e-8)]).operation()
    assert "too small" in str(small.op.check(small))


def test_activation_range() -> None:
    assert activation_range("NONE", 0.1, 5) == (-128, 127)
    assert activation_range("RELU", 0.1, -5) == (-5, 127)
    assert activation_range("RELU6", 0.1, -5) == (-5, 55)
    assert activation_range("RELU6", 0.01, -128) == (-128, 127)
    assert activation_range("RELU_N1_TO_1", 0.1, 5) == (-5, 15)
    assert activation_range("RELU_N1_TO_1", 0.001, 5) == (-128, 127)
    assert activation_range("RELU_0_TO_1", 0.1, 5) == (5, 15)
