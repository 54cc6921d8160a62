"""Lowering: a TFLite operator that is no operator of ours in, the operators of ours that do the same out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinypeft.errors import ModelError
from tinypeft.ir import Purpose, Tensor
from tinypeft.ops.constraints import constant, require_int8
from tinypeft.ops.pad import Paddings, padded, read_paddings
from tinypeft.ops.resize_bilinear import read_size
from tinypeft.ops.strided_slice import Region


@dataclass(frozen=True)
class Lowered:
    """One operation of ours: its kind, operands, results and attributes. A tensor without a name gets one."""

    kind: str
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Lowering:
    """`summary` and `limits` are for the table of operators; `lower(options, inputs, outputs)` gives the operations.

    `lower` raises ModelError, as one sentence, for a form that is not supported; `kinds` are what it may give.
    """

    summary: str
    kinds: tuple[str, ...]
    lower: Callable[[Any, list[Tensor | None], list[Tensor]], list[Lowered]]
    limits: str = ""


# What several of them are made of


def _first(tensors: list[Tensor | None]) -> Tensor:
    """The operand that is moved."""
    tensor = tensors[0]
    require_int8(tensor)
    assert tensor is not None
    return tensor


def _like(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A fresh intermediate tensor with the quantisation of `x`."""
    return Tensor("", shape, x.dtype, Purpose.ACTIVATION, x.scale, x.zero_point)


def _view(x: Tensor, y: Tensor) -> Lowered:
    if x.dtype != y.dtype or x.size != y.size:
        raise ModelError(f"a change of {x} to {y} is not supported")
    return Lowered("RESHAPE", {"input": x}, {"output": y}, {"shape": y.shape})


def _reshaped(x: Tensor, shape: tuple[int, ...]) -> tuple[list[Lowered], Tensor]:
    """`x` in another shape, and what has to run for that: nothing for a constant."""
    if x.shape == shape:
        return [], x
    y = _like(x, shape)
    if x.data is not None:
        y.purpose, y.data = x.purpose, x.data.reshape(shape)
        return [], y
    return [_view(x, y)], y


def _part(x: Tensor, y: Tensor, begin: tuple[int, ...], extents: tuple[int, ...]) -> Lowered:
    """`extents` elements of each axis from `begin` on, in the shape of `y`."""
    if extents == x.shape:
        return _view(x, y)
    region = Region(begin, (1,) * len(begin), extents)
    return Lowered("STRIDED_SLICE", {"input": x}, {"output": y}, {"region": region, "shape": y.shape})


def _along(axis: int, x: Tensor, begin: int, extent: int, y: Tensor) -> Lowered:
    """`extent` elements of one axis."""
    begins = tuple(begin if i == axis else 0 for i in range(len(x.shape)))
    return _part(x, y, begins, tuple(extent if i == axis else n for i, n in enumerate(x.shape)))


def _axis(axis: int, rank: int) -> int:
    """`axis` counted from the front."""
    if not -rank <= axis < rank:
        raise ModelError(f"axis {axis} of {rank} dimensions does not exist")
    return axis % rank


def _rearranged(x: Tensor, shape: tuple[int, ...], permutation: tuple[int, ...], y: Tensor) -> list[Lowered]:
    """`x` seen as `shape`, its axes permuted, seen as `y`."""
    operations, seen = _reshaped(x, shape)
    moved = _like(x, tuple(shape[axis] for axis in permutation))
    operations.append(Lowered("TRANSPOSE", {"input": seen}, {"output": moved}, {"permutation": permutation}))
    return [*operations, _view(moved, y)]


# Views and slices


def _reshape(options: Any, inputs: list[Tensor | None], outputs: list[Tensor]) -> list[Lowered]:
    assert inputs[0] is not None
    return [_view(inputs[0], outputs[0])]


def _slice(options: Any, inputs: list[Tensor | None], outputs: list[Tensor]) -> list[Lowered]:
    x = _first(inputs)
    begin, size = constant(inputs[1], "begin of a slice"), constant(inputs[2], "size of a slice")
    if not len(begin) == len(size) == len(x.shape):
        raise ModelError(f"a slice from {begin} of size {size} does not suit the shape {x.shape}")
    extents = tuple(n - b if s == -1 else s for n, b, s in zip(x.shape, begin, size, strict=True))
    return [_part(x, outputs[0], tuple(begin), extents)]


def _split(options: Any, inputs: list[Tensor | None], outputs: list[Tensor]) -> list[Lowered]:
    return _split_at(_first(inputs[1:]), inputs[0], outputs, None)


def _split_v(options: Any, inputs: list[Tensor | None], outputs: list[Tensor]) -> list[Lowered]:
    return _split_at(_first(inputs), inputs[2], outputs, constant(inputs[1], "sizes of a split"))


def _split_at(x: Tensor, axes: Tensor | None, outputs: list[Tensor], sizes: list[int] | None) -> list[Lowered]:
    axis = _axis(constant(axes, "axis of a split")[0], len(x.shape))
    if sizes is None:
        sizes = [x.shape[axis] // len(outputs)] * len(outputs)
    elif sizes.count(-1) == 1:
        sizes = [x.shape[axis] - sum(sizes) - 1 if size == -1 else size for size in sizes]
    if len(sizes) != len(outputs) or sum(sizes) != x.shape[axis]:
        raise ModelError(f"a split of axis {axis} of shape {x.shape} into {sizes} for {len(outputs)} outputs")
    begins = [sum(sizes[:i]) for i in range(len(sizes))]
    return [_along(axis, x, b, size, y) for b, size, y in zip(begins, sizes, outputs, strict=True)]


def _unpack(options: Any, inputs: list[Tensor | None], outputs: list[Tensor]) -> list[Lowered]:
    x = _first(inputs)
    axis = _axis(int(options.axis), len(x.shape))
    if x.shape[axis] != len(outputs):
        raise ModelError(f"axis {axis} of shape {x.shape} is unpacked into {len(outputs)} outputs")
    return [_along(axis, x, i, 1, y) for i, y in enumerate(outputs)]


def _pack(options: Any, inputs: list[Tensor | None], outputs: list[Tensor]) -> list[Lowered]:
    require_int8(*inputs)
    given = [x for x in inputs if x is not None]
    shape, y = given[0].shape, outputs[0]
    axis = _axis(int(options.axis), len(shape) + 1)
    if any(x.shape != shape for x in given):
        raise ModelError(f"tensors of the shapes {[x.shape for x in given]} are packed")
    operations: list[Lowered] = []
    if axis == len(shape):  # each needs an axis that it can be put side by side along
        pairs = [_reshaped(x, (*shape, 1)) for x in given]
        operations, given = [op for each, _ in pairs for op in each], [x for _, x in pairs]
        shape = (*shape, 1)
    joined = (*shape[:axis], len(given) * shape[axis], *shape[axis + 1 :])
    target = y if joined == y.shape else _like(y, joined)
    operands = {f"input{i}": x for i, x in enumerate(given)}
    operations.append(Lowered("CONCATENATION", operands, {"output": target}, {"axis": axis}))
    return operations if target is y else [*operations, _view(target, y)]


# Space and depth


def _space_to_depth(options: Any, inputs: list[Tensor | None], outputs: list[Tensor]) -> list[Lowered]:
    x, block = _first(inputs), int(options.blockSize)
    n, h, w, c = _image(x)
    if block < 1 or h % block or w % block:
        raise ModelError(f"an image of {h} x {w} is not made of blocks of {block}")
    seen = (n, h // block, block, w // block, block, c)
    return _rearranged(x, seen, (0, 1, 3, 2, 4, 5), outputs[0])


def _depth_to_space(options: Any, inputs: list[Tensor | None], outputs: list[Tensor]) -> list[Lowered]:
    x, block = _first(inputs), int(options.blockSize)
    n, h, w, c = _image(x)
    if block < 1 or c % (block * block):
        raise ModelError(f"{c} channels do not make blocks of {block} x {block}")
    seen = (n, h, w, block, block, c // (block * block))
    return _rearranged(x, seen, (0, 1, 3, 2, 4, 5), outputs[0])


def _image(x: Tensor) -> tuple[int, ...]:
    if len(x.shape) != 4:
        raise ModelError(f"{x} is not (N, H, W, C)")
    return x.shape


def _blocks(x: Tensor, inputs: list[Tensor | None], amounts: str) -> tuple[tuple[int, ...], Paddings]:
    """(block sizes, amounts in front and behind) of the axes from the second on."""
    blocks, flat = tuple(constant(inputs[1], "block shape")), constant(inputs[2], amounts)
    if len(flat) != 2 * len(blocks) or len(blocks) >= len(x.shape) or min((*blocks, 1)) < 1 or min((*flat, 0)) < 0:
        raise ModelError(f"the blocks {blocks} with the {amounts} {flat} do not suit the shape {x.shape}")
    return blocks, tuple(zip(flat[0::2], flat[1::2], strict=True))


def _space_to_batch(options: Any, inputs: list[Tensor | None], outputs: list[Tensor]) -> list[Lowered]:
    x, operations = _first(inputs), []
    blocks, amounts = _blocks(x, inputs, "paddings")
    rank, m = len(x.shape), len(blocks)
    paddings = ((0, 0), *amounts, *[(0, 0)] * (rank - 1 - m))
    if any(amounts_of != (0, 0) for amounts_of in amounts):
        wider = _like(x, padded(x.shape, paddings))
        attributes = {"paddings": paddings, "value": x.zero_point}
        operations.append(Lowered("PAD", {"input": x}, {"output": wider}, attributes))
        x = wider
    if any(n % block for n, block in zip(x.shape[1:], blocks, strict=False)):
        raise ModelError(f"an image of shape {x.shape} with its padding is not made of blocks of {blocks}")
    seen = [x.shape[0]]
    for n, block in zip(x.shape[1:], blocks, strict=False):
        seen += [n // block, block]
    inner = tuple(range(2, 2 * m + 1, 2))
    permutation = (*inner, 0, *(axis - 1 for axis in inner), *range(2 * m + 1, m + rank))
    return [*operations, *_rearranged(x, (*seen, *x.shape[m + 1 :]), permutation, outputs[0])]


def _batch_to_space(options: Any, inputs: list[Tensor | None], outputs: list[Tensor]) -> list[Lowered]:
    x, y = _first(inputs), outputs[0]
    blocks, crops = _blocks(x, inputs, "crops")
    rank, m, count = len(x.shape), len(blocks), math.prod(blocks)
    if x.shape[0] % count:
        raise ModelError(f"a batch of {x.shape[0]} does not make blocks of {blocks}")
    permutation = [m]
    for axis in range(m):
        permutation += [m + 1 + axis, axis]
    permutation += range(2 * m + 1, m + rank)
    whole = (
        x.shape[0] // count,
        *(n * b for n, b in zip(x.shape[1:], blocks, strict=False)),
        *x.shape[m + 1 :],
    )
    seen = (*blocks, x.shape[0] // count, *x.shape[1:])
    if all(crop == (0, 0) for crop in crops):
        return _rearranged(x, seen, tuple(permutation), y)
    uncropped = _like(x, whole)
    begin = (0, *(before for before, _ in crops), *[0] * (rank - 1 - m))
    cut = ((0, 0), *crops, *[(0, 0)] * (rank - 1 - m))
    extents = padded(whole, tuple((-before, -after) for before, after in cut))
    return [*_rearranged(x, seen, tuple(permutation), uncropped), _part(uncropped, y, begin, extents)]


# Padding and resizing


def _padv2(options: Any, inputs: list[Tensor | None], outputs: list[Tensor]) -> list[Lowered]:
    x, value = _first(inputs), inputs[2]
    require_int8(value)
    attributes = {"paddings": read_paddings(x, inputs[1]), "value": constant(value, "padding's value")[0]}
    return [Lowered("PAD", {"input": x}, {"output": outputs[0]}, attributes)]


def _chosen(x: Tensor, y: Tensor, indices: dict[int, list[int]]) -> list[Lowered]:
    """`y` with the elements `indices` of each axis of `x` that is named: one axis, or two that adjoin, at a time."""
    axes = sorted(axis for axis, chosen in indices.items() if chosen != list(range(x.shape[axis])))
    operations, last = [], x
    while axes:
        axis = axes.pop(0)
        chosen = [indices[axis]]
        if axes and axes[0] == axis + 1:
            chosen.append(indices[axes.pop(0)])
        shape = (*last.shape[:axis], *map(len, chosen), *last.shape[axis + len(chosen) :])
        result = _like(x, shape) if axes else y
        attributes = {"axis": axis, "indices": tuple(map(tuple, chosen)), "shape": shape}
        operations.append(Lowered("GATHER", {"input": last}, {"output": result}, attributes))
        last = result
    return operations or [_view(x, y)]


def _mirror_pad(options: Any, inputs: list[Tensor | None], outputs: list[Tensor]) -> list[Lowered]:
    x = _first(inputs)
    paddings, symmetric = read_paddings(x, inputs[1]), int(options.mode)
    if any(max(amounts) > n - 1 + symmetric for n, amounts in zip(x.shape, paddings, strict=True)):
        raise ModelError(f"a mirrored padding of {paddings} is larger than the shape {x.shape}")
    mirrored = [
        np.pad(np.arange(n), amounts, "symmetric" if symmetric else "reflect").tolist()
        for n, amounts in zip(x.shape, paddings, strict=True)
    ]
    return _chosen(x, outputs[0], dict(enumerate(mirrored)))


def _tile(options: Any, inputs: list[Tensor | None], outputs: list[Tensor]) -> list[Lowered]:
    x, counts = _first(inputs), constant(inputs[1], "multiples of a tile")
    if len(counts) != len(x.shape) or min(counts) < 1:
        raise ModelError(f"a tile of shape {x.shape} by {counts} is not supported")
    repeated = [list(range(n)) * count for n, count in zip(x.shape, counts, strict=True)]
    return _chosen(x, outputs[0], dict(enumerate(repeated)))


def _broadcast(options: Any, inputs: list[Tensor | None], outputs: list[Tensor]) -> list[Lowered]:
    x, y = _first(inputs), outputs[0]
    constant(inputs[1], "shape of a broadcast")
    extents = (*(1,) * (len(y.shape) - len(x.shape)), *x.shape)
    if len(extents) != len(y.shape) or any(n not in (1, new) for n, new in zip(extents, y.shape, strict=True)):
        raise ModelError(f"shape {x.shape} does not broadcast to {y.shape}")
    operations, seen = _reshaped(x, extents)
    repeated = {axis: [0] * y.shape[axis] for axis, n in enumerate(extents) if n == 1}
    return [*operations, *_chosen(seen, y, repeated)]


def _reverse(options: Any, inputs: list[Tensor | None], outputs: list[Tensor]) -> list[Lowered]:
    x = _first(inputs)
    rank = len(x.shape)
    reversed_ = {_axis(axis, rank) for axis in constant(inputs[1], "axes of a reversal")}
    begin = tuple(n - 1 if axis in reversed_ else 0 for axis, n in enumerate(x.shape))
    region = Region(begin, tuple(-1 if axis in reversed_ else 1 for axis in range(rank)), x.shape)
    attributes = {"region": region, "shape": x.shape}
    return [Lowered("STRIDED_SLICE", {"input": x}, {"output": outputs[0]}, attributes)]


def _resize_nearest(options: Any, inputs: list[Tensor | None], outputs: list[Tensor]) -> list[Lowered]:
    x = _first(inputs)
    size = read_size(options, x, inputs[1])
    align, half = bool(options.alignCorners), bool(options.halfPixelCenters)
    rows, columns = (_nearest(n, new, align, half) for n, new in zip(x.shape[1:3], size, strict=True))
    return _chosen(x, outputs[0], {1: rows, 2: columns})


def _nearest(extent: int, new: int, align_corners: bool, half_pixel_centers: bool) -> list[int]:
    """The input of each output of an axis, in LiteRT's float32."""
    scale = np.float32(extent) / np.float32(new)
    if align_corners and new > 1:
        scale = np.float32(extent - 1) / np.float32(new - 1)
    positions = (np.arange(new, dtype=np.float32) + np.float32(0.5 if half_pixel_centers else 0.0)) * scale
    nearest = np.floor(positions.astype(np.float64) + (0.5 if align_corners else 0.0))
    return np.clip(nearest.astype(np.int64), 0, extent - 1).tolist()


_CONSTANT = "Its parameters must be constant."

#: TFLite operator -> what becomes of it
LOWERINGS: dict[str, Lowering] = {
    "BATCH_TO_SPACE_ND": Lowering(
        "Blocks of the batch side by side in space, then cropped.",
        ("RESHAPE", "TRANSPOSE", "STRIDED_SLICE"),
        _batch_to_space,
        _CONSTANT,
    ),
    "BROADCAST_TO": Lowering("A tensor repeated to a larger shape.", ("RESHAPE", "GATHER"), _broadcast, _CONSTANT),
    "DEPTH_TO_SPACE": Lowering("Blocks of channels as squares of pixels.", ("RESHAPE", "TRANSPOSE"), _depth_to_space),
    "EXPAND_DIMS": Lowering("A view: the same elements with an axis of 1 more.", ("RESHAPE",), _reshape),
    "MIRROR_PAD": Lowering("The tensor mirrored around itself.", ("GATHER", "RESHAPE"), _mirror_pad, _CONSTANT),
    "PACK": Lowering("Tensors stacked along a new axis.", ("CONCATENATION", "RESHAPE"), _pack),
    "PADV2": Lowering(
        "A constant around a tensor.", ("PAD",), _padv2, f"{_CONSTANT} At most 5 dimensions, as in LiteRT."
    ),
    "RESIZE_NEAREST_NEIGHBOR": Lowering(
        "An image of another size, each pixel a copy of the nearest.", ("GATHER", "RESHAPE"), _resize_nearest, _CONSTANT
    ),
    "REVERSE_V2": Lowering(
        "A tensor with axes the other way round.",
        ("STRIDED_SLICE",),
        _reverse,
        f"{_CONSTANT} The converter may give the output another scale, which is refused: slice by [::-1] instead.",
    ),
    "SLICE": Lowering("A part of a tensor.", ("STRIDED_SLICE", "RESHAPE"), _slice, _CONSTANT),
    "SPACE_TO_BATCH_ND": Lowering(
        "Pads, then takes blocks of pixels apart into the batch.",
        ("PAD", "RESHAPE", "TRANSPOSE"),
        _space_to_batch,
        _CONSTANT,
    ),
    "SPACE_TO_DEPTH": Lowering("Squares of pixels as channels.", ("RESHAPE", "TRANSPOSE"), _space_to_depth),
    "SPLIT": Lowering("Equal parts of a tensor along an axis.", ("STRIDED_SLICE", "RESHAPE"), _split, _CONSTANT),
    "SPLIT_V": Lowering("Parts of a tensor along an axis.", ("STRIDED_SLICE", "RESHAPE"), _split_v, _CONSTANT),
    "SQUEEZE": Lowering("A view: the same elements without axes of 1.", ("RESHAPE",), _reshape),
    "TILE": Lowering("A tensor repeated along its axes.", ("GATHER", "RESHAPE"), _tile, _CONSTANT),
    "UNPACK": Lowering("The tensors along an axis.", ("STRIDED_SLICE", "RESHAPE"), _unpack),
}
