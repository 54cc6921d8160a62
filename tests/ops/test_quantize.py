"""QUANTIZE of float32 values that no int8 stands for."""

from __future__ import annotations

import ai_edge_litert.schema_py_generated as schema
import numpy as np
from kernel_harness import compare_kernel
from tflite_builder import Node, float_tensor, int8_tensor


def test_values_far_outside_saturate() -> None:
    values = np.array([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45, -0.0, 51.15, -51.25], np.float32)
    for scale, zero_point in ((0.1, 0), (1e-30, 127), (100.0, -128)):
        x, y = float_tensor("x", values.shape), int8_tensor("y", values.shape, scale, zero_point)
        op = Node("QUANTIZE", schema.QuantizeOptionsT(), [x], [y]).operation()
        output = compare_kernel(op, {"input": values})["output"]
        assert list(output[:3]) == [-128, 127, -128]
        assert output[6] == zero_point


def test_ties_round_away_from_zero() -> None:
    values = np.array([0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.49999997, -0.49999997], np.float32)
    x, y = float_tensor("x", values.shape), int8_tensor("y", values.shape, 1.0)
    op = Node("QUANTIZE", schema.QuantizeOptionsT(), [x], [y]).operation()
    np.testing.assert_array_equal(compare_kernel(op, {"input": values})["output"], [1, 2, 3, -1, -2, -3, 0, 0])
