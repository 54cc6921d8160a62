"""Forms of operators that are not supported are refused in one sentence that says what is wrong."""

from __future__ import annotations

import ai_edge_litert.schema_py_generated as schema
import numpy as np
import pytest
from tflite_builder import Node, float_tensor, int8_tensor, int32_constant

from tinypeft.errors import ModelError
from tinypeft.ir import Tensor
from tinypeft.ops.activation import activation_range


def _x(*shape: int, scale: float = 0.1) -> Tensor:
    return int8_tensor("x", shape, scale)


def _pool(batch: int = 1, **options: int) -> Node:
    default = {"padding": 1, "strideH": 1, "strideW": 1, "filterHeight": 2, "filterWidth": 2}
    return Node("MAX_POOL_2D", schema.Pool2DOptionsT(**(default | options)), [_x(batch, 4, 4, 1)], [_x(batch, 3, 3, 1)])


REFUSED = {
    "broadcasts": Node("ADD", schema.AddOptionsT(), [_x(1, 4, 4, 2), _x(1, 1, 1, 2)], [_x(1, 4, 4, 2)]),
    "RELU_N1_TO_1": _pool(fusedActivationFunction=2),
    r"\(1, H, W, C\)": _pool(batch=2),
    "does not fit": _pool(filterHeight=5),
    "axes": Node("MEAN", schema.ReducerOptionsT(), [_x(1, 4, 4, 2), int32_constant("axes", [3])], [_x(1, 4, 4)]),
    "must be constant": Node("MEAN", schema.ReducerOptionsT(), [_x(1, 4, 4, 2), _x(2)], [_x(1, 2)]),
    "height, width or channels|padding of": Node(
        "PAD", schema.PadOptionsT(), [_x(1, 2), int32_constant("p", [[1, 0], [0, 0]])], [_x(2, 2)]
    ),
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
