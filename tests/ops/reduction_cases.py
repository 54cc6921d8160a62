"""Random TFLite nodes of reductions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ai_edge_litert.schema_py_generated as schema
import numpy as np
from random_values import random_scale, random_shape, random_zero_point
from tflite_builder import Node, int8_tensor, int32_constant


def _axes(rng: np.random.Generator, rank: int) -> list[int]:
    """Some axes, all now and then: in any order, negative ones and one given twice among them."""
    axes = [int(n) for n in rng.permutation(rank)[: rng.integers(1, rank + 1)]]
    if rng.random() < 0.2:
        axes.append(axes[0])
    return [axis - rank if rng.random() < 0.4 else axis for axis in axes]


def reduction(rng: np.random.Generator, kind: str) -> Node:
    """A reduction of rank 1 to 5, one in three over height and width; the scale stays the same for the extremes."""
    shape, axes = random_shape(rng, 13), [[1, 2], [-2, -3]][rng.integers(2)]
    if rng.random() < 0.67:
        rank = int(rng.integers(1, 6))
        shape = (1, *(int(n) for n in rng.integers(1, 6, rank - 1)))
        axes = _axes(rng, rank)
    keep = bool(rng.integers(2))
    reduced = {axis % len(shape) for axis in axes}
    out = tuple(1 if i in reduced else n for i, n in enumerate(shape) if keep or i not in reduced)
    scale, zero_point = random_scale(rng), random_zero_point(rng)
    out_scale, out_zero_point = scale, zero_point
    if kind == "MEAN":
        out_scale = scale if rng.random() < 0.4 else scale * float(np.exp(rng.uniform(-2, 2)))
        out_zero_point = zero_point if rng.random() < 0.3 else random_zero_point(rng)
    x, y = int8_tensor("x", shape, scale, zero_point), int8_tensor("y", out, out_scale, out_zero_point)
    return Node(kind, schema.ReducerOptionsT(keepDims=keep), [x, int32_constant("axes", axes)], [y])


REDUCTION_CASES: dict[str, Callable[..., Any]] = {
    "MEAN": reduction,
    "REDUCE_MAX": reduction,
    "REDUCE_MIN": reduction,
}
