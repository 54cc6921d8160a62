"""Random TFLite nodes of operators that move or resize data: any rank and axis, negative indices, single pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ai_edge_litert.schema_py_generated as schema
import numpy as np
from random_values import random_int8, random_scale, random_zero_point
from tflite_builder import Node, int8_tensor, int32_constant

from tinypeft.ir import Tensor


def shape_of(rng: np.random.Generator, low: int = 1, high: int = 5, largest: int = 6) -> tuple[int, ...]:
    """A shape of `low` to `high` dimensions, at least two elements."""
    shape = tuple(int(n) for n in rng.integers(1, largest + 1, rng.integers(low, high + 1)))
    return shape if np.prod(shape) > 1 else (*shape[:-1], 3)


def similar(rng: np.random.Generator) -> Callable[..., Tensor]:
    """A function that makes tensors of one random quantisation."""
    scale, zero_point = random_scale(rng), random_zero_point(rng)

    def like(name: str, shape: Any, data: Any = None) -> Tensor:
        return int8_tensor(name, shape, scale, zero_point, data)

    return like


def concatenation(rng: np.random.Generator, **_: Any) -> Node:
    """CONCATENATION of one to six tensors, one in five constant."""
    shape = shape_of(rng)
    axis = int(rng.integers(len(shape)))
    like = similar(rng)
    inputs: list[Tensor] = []
    for i in range(int(rng.integers(1, 7))):
        part = (*shape[:axis], int(rng.integers(1, 6)), *shape[axis + 1 :])
        constant = i > 0 and rng.random() < 0.2
        inputs.append(like(f"x{i}", part, random_int8(rng, part) if constant else None))
    total = sum(x.shape[axis] for x in inputs)
    y = like("y", (*shape[:axis], total, *shape[axis + 1 :]))
    given = axis - len(shape) if rng.random() < 0.3 else axis
    return Node("CONCATENATION", schema.ConcatenationOptionsT(axis=given), inputs, [y])


def strided_slice(rng: np.random.Generator, **_: Any) -> Node:
    """STRIDED_SLICE of any part but the whole, with all masks and strides of both signs."""
    while True:
        shape = shape_of(rng, high=4)
        options, begin, end, strides, index = _slice_arguments(rng, shape)
        result = np.empty(shape, np.int8)[index]
        if 0 < result.size < np.prod(shape):
            break
    like = similar(rng)
    x = like("x", shape)
    operands = [int32_constant(n, v) for n, v in (("begin", begin), ("end", end), ("strides", strides))]
    return Node("STRIDED_SLICE", options, [x, *operands], [like("y", result.shape)])


def _slice_arguments(
    rng: np.random.Generator, shape: tuple[int, ...]
) -> tuple[Any, list[int], list[int], list[int], Any]:
    """(options, begin, end, strides, the NumPy index that does the same)."""
    options = schema.StridedSliceOptionsT()
    begin: list[int] = []
    end: list[int] = []
    strides: list[int] = []
    index: list[Any] = []
    ellipsis = int(rng.integers(len(shape))) if rng.random() < 0.2 else -1
    skipped = int(rng.integers(1, len(shape) - ellipsis + 1)) if ellipsis >= 0 else 0

    def add(first: int, last: int, step: int, chosen: Any, **masks: bool) -> None:
        for name, wanted in masks.items():
            setattr(options, name, getattr(options, name) | int(wanted) << len(begin))
        begin.append(first)
        end.append(last)
        strides.append(step)
        index.append(chosen)

    for axis, extent in enumerate(shape):
        if axis == ellipsis:
            add(0, 0, 1, Ellipsis, ellipsisMask=True)
        if ellipsis <= axis < ellipsis + skipped and ellipsis >= 0:
            continue
        if rng.random() < 0.1:
            add(0, 1, 1, np.newaxis, newAxisMask=True)
        if rng.random() < 0.2:
            at = int(rng.integers(-extent, extent))
            add(at, at + 1, 1, at, shrinkAxisMask=True)
            continue
        step = int(rng.choice([1, 1, 1, 2, 3, -1, -2]))
        low, high = sorted(int(n) for n in rng.integers(-extent - 1, extent + 2, 2))
        first, last = (low, high) if step > 0 else (high, low)
        no_first, no_last = rng.random(2) < 0.3
        chosen = slice(None if no_first else first, None if no_last else last, step)
        add(first, last, step, chosen, beginMask=bool(no_first), endMask=bool(no_last))
    return options, begin, end, strides, tuple(index)


def transpose(rng: np.random.Generator, **_: Any) -> Node:
    """TRANSPOSE of two to five dimensions, the permutation never the identity."""
    shape = shape_of(rng, low=2)
    permutation = rng.permutation(len(shape))
    while (permutation == np.arange(len(shape))).all():
        permutation = rng.permutation(len(shape))
    new = tuple(shape[axis] for axis in permutation)
    like = similar(rng)
    x = like("x", shape)
    return Node(
        "TRANSPOSE", schema.TransposeOptionsT(), [x, int32_constant("permutation", permutation)], [like("y", new)]
    )


def gather(rng: np.random.Generator, **_: Any) -> Node:
    """GATHER by one or two dimensions of indices, some of them more often."""
    shape = shape_of(rng, high=4)
    axis = int(rng.integers(len(shape)))
    indices = rng.integers(0, shape[axis], rng.integers(1, 5, rng.integers(1, 3)))
    new = (*shape[:axis], *indices.shape, *shape[axis + 1 :])
    like = similar(rng)
    x = like("x", shape)
    given = axis - len(shape) if rng.random() < 0.3 else axis
    return Node("GATHER", schema.GatherOptionsT(axis=given), [x, int32_constant("indices", indices)], [like("y", new)])


def resize(rng: np.random.Generator, kind: str) -> Node:
    """RESIZE_BILINEAR or RESIZE_NEAREST_NEIGHBOR: larger, smaller, whole factors more often."""
    batch, h, w, c = (int(n) for n in rng.integers(1, [3, 9, 9, 12]))
    if rng.random() < 0.4:
        height, width = (int(n * rng.integers(1, 4)) for n in (h, w))
    else:
        height, width = (int(n) for n in rng.integers(1, 20, 2))
    align, half = [(False, False), (True, False), (False, True)][rng.integers(3)]
    options = {
        "RESIZE_BILINEAR": schema.ResizeBilinearOptionsT,
        "RESIZE_NEAREST_NEIGHBOR": schema.ResizeNearestNeighborOptionsT,
    }
    new = (batch, height, width, c)
    like = similar(rng)
    x = like("x", (batch, h, w, c))
    size = int32_constant("size", [height, width])
    return Node(kind, options[kind](alignCorners=align, halfPixelCenters=half), [x, size], [like("y", new)])


LAYOUT_CASES: dict[str, Callable[..., Node]] = {
    "CONCATENATION": concatenation, "GATHER": gather, "RESIZE_BILINEAR": resize, "STRIDED_SLICE": strided_slice,
    "TRANSPOSE": transpose,
}  # fmt: skip
