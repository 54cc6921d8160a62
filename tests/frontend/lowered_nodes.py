"""Random TFLite nodes of the operators that are lowered to others, each behind one input and in front of one output."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import ai_edge_litert.schema_py_generated as schema
import numpy as np
from layout_cases import resize, shape_of, similar
from random_values import random_int8
from tflite_builder import Node, int8_tensor, int32_constant

from tinypeft.ir import Tensor

Rng = np.random.Generator


def reshape(rng: Rng, kind: str) -> list[Node]:
    """EXPAND_DIMS or SQUEEZE."""
    shape, like = shape_of(rng, high=4), similar(rng)
    at = int(rng.integers(len(shape) + 1))
    wider = (*shape[:at], 1, *shape[at:])
    if kind == "EXPAND_DIMS":
        return [
            Node(kind, schema.ExpandDimsOptionsT(), [like("x", shape), int32_constant("axis", at)], [like("y", wider)])
        ]
    return [Node(kind, schema.SqueezeOptionsT(squeezeDims=[at]), [like("x", wider)], [like("y", shape)])]


def slice_(rng: Rng, kind: str) -> list[Node]:
    """SLICE, sizes of -1 among them, the whole tensor too."""
    shape, like = shape_of(rng), similar(rng)
    begin = [int(rng.integers(n)) if rng.random() < 0.6 else 0 for n in shape]
    size = [int(rng.integers(1, n - b + 1)) if rng.random() < 0.6 else n - b for n, b in zip(shape, begin, strict=True)]
    given = [-1 if s == n - b and rng.random() < 0.5 else s for n, b, s in zip(shape, begin, size, strict=True)]
    operands = [like("x", shape), int32_constant("begin", begin), int32_constant("size", given)]
    return [Node(kind, schema.SliceOptionsT(), operands, [like("y", size)])]


def split(rng: Rng, kind: str) -> list[Node]:
    """SPLIT, SPLIT_V or UNPACK, and what came apart put together in another order."""
    shape, like = list(shape_of(rng, low=2, high=4)), similar(rng)
    axis = int(rng.integers(len(shape)))
    sizes = [int(n) for n in rng.integers(1, 4, rng.integers(1, 5))]
    if kind != "SPLIT_V":
        sizes = [1 if kind == "UNPACK" else sizes[0]] * len(sizes)
    shape[axis] = sum(sizes)
    given = axis - len(shape) if rng.random() < 0.3 else axis
    at = int32_constant("axis", given)
    x = like("x", shape)
    if kind == "UNPACK":
        parts = [like(f"p{i}", shape[:axis] + shape[axis + 1 :]) for i in range(len(sizes))]
        node = Node(kind, schema.UnpackOptionsT(num=len(sizes), axis=given), [x], parts)
        y = like("y", [len(sizes), *parts[0].shape])
        return [node, Node("PACK", schema.PackOptionsT(valuesCount=len(sizes), axis=0), parts[::-1], [y])]
    parts = [like(f"p{i}", [*shape[:axis], size, *shape[axis + 1 :]]) for i, size in enumerate(sizes)]
    if kind == "SPLIT":
        node = Node(kind, schema.SplitOptionsT(numSplits=len(sizes)), [at, x], parts)
    else:
        listed = [-1 if i == 0 and rng.random() < 0.3 else size for i, size in enumerate(sizes)]
        node = Node(kind, schema.SplitVOptionsT(numSplits=len(sizes)), [x, int32_constant("sizes", listed), at], parts)
    return [node, Node("CONCATENATION", schema.ConcatenationOptionsT(axis=axis), parts[::-1], [like("y", shape)])]


def pack(rng: Rng, kind: str) -> list[Node]:
    """PACK of the input and of constants, along every axis."""
    shape, like = shape_of(rng, high=4), similar(rng)
    axis = int(rng.integers(len(shape) + 1))
    count = int(rng.integers(1, 5))
    x = like("x", shape)
    place = int(rng.integers(count))
    inputs = [x if i == place else like(f"c{i}", shape, random_int8(rng, shape)) for i in range(count)]
    y = like("y", (*shape[:axis], count, *shape[axis:]))
    given = axis - len(shape) - 1 if rng.random() < 0.3 else axis
    return [Node(kind, schema.PackOptionsT(valuesCount=count, axis=given), inputs, [y])]


def depth(rng: Rng, kind: str) -> list[Node]:
    """SPACE_TO_DEPTH or DEPTH_TO_SPACE."""
    n, h, w, c, block = (int(v) for v in rng.integers(1, [3, 5, 5, 5, 4]))
    like = similar(rng)
    wide, deep = like("wide", (n, h * block, w * block, c)), like("deep", (n, h, w, c * block * block))
    if kind == "SPACE_TO_DEPTH":
        return [Node(kind, schema.SpaceToDepthOptionsT(blockSize=block), [wide], [deep])]
    return [Node(kind, schema.DepthToSpaceOptionsT(blockSize=block), [deep], [wide])]


def batches(rng: Rng, kind: str) -> list[Node]:
    """SPACE_TO_BATCH_ND or BATCH_TO_SPACE_ND of an image or a sequence, padded or cropped half of the time."""
    axes = int(rng.integers(1, 3))
    blocks, small = rng.integers(1, 4, axes), rng.integers(1, 4, axes)
    n, c, like = int(rng.integers(1, 3)), int(rng.integers(1, 5)), similar(rng)
    whole = small * blocks
    amounts = np.zeros((axes, 2), int)
    if rng.random() < 0.5:
        for axis in range(axes):
            amounts[axis] = rng.multinomial(int(rng.integers(whole[axis])), [0.3, 0.3, 0.4])[:2]
    apart = like("apart", (n * math.prod(blocks), *small, c))
    together = like("together", (n, *(whole - amounts.sum(axis=1)), c))
    operands = [int32_constant("blocks", blocks), int32_constant("amounts", amounts)]
    if kind == "SPACE_TO_BATCH_ND":
        return [Node(kind, schema.SpaceToBatchNDOptionsT(), [together, *operands], [apart])]
    return [Node(kind, schema.BatchToSpaceNDOptionsT(), [apart, *operands], [together])]


def padv2(rng: Rng, kind: str) -> list[Node]:
    """PADV2 with any int8."""
    shape, like = shape_of(rng), similar(rng)
    paddings = rng.integers(0, 3, (len(shape), 2))
    operands = [int32_constant("paddings", paddings), like("value", (1,), random_int8(rng, (1,)))]
    y = like("y", np.array(shape) + paddings.sum(axis=1))
    return [Node(kind, schema.PadV2OptionsT(), [like("x", shape), *operands], [y])]


def mirror_pad(rng: Rng, kind: str) -> list[Node]:
    """MIRROR_PAD, both modes, of any axes or none."""
    shape, like = shape_of(rng, high=4), similar(rng)
    mode = int(rng.integers(2))
    paddings = np.array([rng.integers(0, n + mode, 2) * int(rng.random() < 0.6) for n in shape])
    y = like("y", np.array(shape) + paddings.sum(axis=1))
    options = schema.MirrorPadOptionsT(mode=mode)
    return [Node(kind, options, [like("x", shape), int32_constant("paddings", paddings)], [y])]


def tile(rng: Rng, kind: str) -> list[Node]:
    """TILE, some axes once only."""
    shape, like = shape_of(rng, high=4, largest=4), similar(rng)
    counts = [int(n) for n in rng.integers(1, 4, len(shape))]
    y = like("y", np.array(shape) * counts)
    return [Node(kind, schema.TileOptionsT(), [like("x", shape), int32_constant("multiples", counts)], [y])]


def broadcast(rng: Rng, kind: str) -> list[Node]:
    """BROADCAST_TO, with further axes in front now and then."""
    new, like = shape_of(rng, high=5, largest=4), similar(rng)
    shape = tuple(1 if rng.random() < 0.5 else n for n in new)[int(rng.integers(len(new))) :]
    return [
        Node(kind, schema.BroadcastToOptionsT(), [like("x", shape), int32_constant("shape", new)], [like("y", new)])
    ]


def reverse(rng: Rng, kind: str) -> list[Node]:
    """REVERSE_V2 of adjoining axes."""
    shape, like = shape_of(rng, high=4), similar(rng)
    first = int(rng.integers(len(shape)))
    axes = list(range(first, int(rng.integers(first + 1, len(shape) + 1))))
    return [
        Node(kind, schema.ReverseV2OptionsT(), [like("x", shape), int32_constant("axes", axes)], [like("y", shape)])
    ]


def resize_nearest(rng: Rng, kind: str) -> list[Node]:
    """RESIZE_NEAREST_NEIGHBOR."""
    return [resize(rng, kind)]


LOWERED: dict[str, Callable[[Rng, str], list[Node]]] = {
    "BATCH_TO_SPACE_ND": batches, "BROADCAST_TO": broadcast, "DEPTH_TO_SPACE": depth, "EXPAND_DIMS": reshape,
    "MIRROR_PAD": mirror_pad, "PACK": pack, "PADV2": padv2, "RESIZE_NEAREST_NEIGHBOR": resize_nearest,
    "REVERSE_V2": reverse, "SLICE": slice_, "SPACE_TO_BATCH_ND": batches, "SPACE_TO_DEPTH": depth, "SPLIT": split,
    "SPLIT_V": split, "SQUEEZE": reshape, "TILE": tile, "UNPACK": split,
}  # fmt: skip


def simple(kind: str, options: Any, operands: list[Tensor], shape: tuple[int, ...], new: tuple[int, ...]) -> Node:
    """A node from an input of `shape` to an output of `new`, both of one quantisation."""
    x, y = int8_tensor("x", shape, 0.1), int8_tensor("y", new, 0.1)
    return Node(kind, options, [x, *operands], [y])
