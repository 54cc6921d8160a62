"""MEAN where the exact result lies half-way between two steps: LiteRT's truncated multiplier decides."""

from __future__ import annotations

import ai_edge_litert.schema_py_generated as schema
import numpy as np
import pytest
from kernel_harness import compare_kernel
from tflite_builder import Node, build_model, int8_tensor, int32_constant, run_reference


@pytest.mark.parametrize("count", [2, 6, 10, 12, 14, 48, 100, 126, 250])
def test_ties_round_as_in_litert(count: int) -> None:
    halves = np.arange(-127, 127)
    # count/2 ones above each level: a mean of level + 1/2
    values = np.repeat(halves[None, :], count, axis=0)
    values[: count // 2] += 1
    x = values.astype(np.int8).reshape(1, count // 2, 2, len(halves))
    for zero_point, scale_ratio in ((0, 1.0), (-128, 1.0), (17, 1.0), (0, 0.5), (5, 3.0)):
        inputs = [int8_tensor("x", x.shape, 0.05, zero_point), int32_constant("axes", [1, 2])]
        output = int8_tensor("y", (1, len(halves)), 0.05 * scale_ratio, -zero_point - 1)
        node = Node("MEAN", schema.ReducerOptionsT(keepDims=False), inputs, [output])
        (expected,) = run_reference(build_model(node), x)
        np.testing.assert_array_equal(compare_kernel(node.operation(), {"input": x})["output"], expected)


@pytest.mark.parametrize(
    ("count", "input_scale", "output_scale", "total"),
    [
        (374, 0.07719773799180984, 0.15195736289024353, -40857),
        (191, 0.07207465916872025, 0.09328766167163849, -22372),
        (316, 0.06398075073957443, 0.09405685216188431, -32285),
    ],
)
def test_the_multiplier_is_truncated(count: int, input_scale: float, output_scale: float, total: int) -> None:
    """Cases that come out differently where the division by count rounds the multiplier."""
    x = np.full((1, count, 1, 1), total // count, np.int8)
    x[:, : total % count] += 1
    inputs = [int8_tensor("x", x.shape, input_scale), int32_constant("axes", [1, 2])]
    node = Node("MEAN", schema.ReducerOptionsT(keepDims=False), inputs, [int8_tensor("y", (1, 1), output_scale)])
    (expected,) = run_reference(build_model(node), x)
    np.testing.assert_array_equal(compare_kernel(node.operation(), {"input": x})["output"], expected)
