"""How two operands of an elementwise operator are broadcast to its output: NumPy's rules. Defines no operator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_LOOPS = ("outer", "middle", "inner", "row")
#: Nested loops of the kernels, after adjoining dimensions that broadcast alike have been merged.
MAX_DIMENSIONS = len(_LOOPS)

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Broadcast:
    """Extents of the output and strides of both operands, outermost first; a stride of 0 repeats an operand."""

    extents: Shape
    strides: tuple[Shape, Shape]

    def fields(self) -> dict[str, dict[str, int]]:
        """The C struct tp_broadcast."""
        missing = MAX_DIMENSIONS - len(self.extents)
        rows = [(1, 0, 0)] * missing + list(zip(self.extents, *self.strides, strict=True))
        return {
            loop: {"extent": extent, "stride1": stride1, "stride2": stride2}
            for loop, (extent, stride1, stride2) in zip(_LOOPS, rows, strict=True)
        }


def broadcast_shape(a: Shape, b: Shape) -> Shape | None:
    """The shape of the output; None where `a` and `b` do not go together."""
    try:
        return tuple(int(n) for n in np.broadcast_shapes(a, b))
    except ValueError:
        return None


def make_broadcast(a: Shape, b: Shape) -> Broadcast | None:
    """How `a` and `b` are broadcast to each other; None where that takes more than MAX_DIMENSIONS loops."""
    output = np.broadcast_shapes(a, b)
    padded = [(1,) * (len(output) - len(shape)) + tuple(shape) for shape in (a, b)]
    merged: list[tuple[int, bool, bool]] = []  # extent, whether each operand has the dimension
    for extent, extent_a, extent_b in zip(output, *padded, strict=True):
        if extent == 1:
            continue
        if merged and merged[-1][1:] == (extent_a > 1, extent_b > 1):
            merged[-1] = (merged[-1][0] * extent, *merged[-1][1:])
        else:
            merged.append((extent, extent_a > 1, extent_b > 1))
    if len(merged) > MAX_DIMENSIONS:
        return None
    extents = tuple(extent for extent, _, _ in merged)
    present = [[row[operand] for row in merged] for operand in (1, 2)]
    return Broadcast(extents, (_strides(extents, present[0]), _strides(extents, present[1])))


def _strides(extents: Sequence[int], present: Sequence[int]) -> Shape:
    strides, stride = [], 1
    for extent, here in zip(reversed(extents), reversed(present), strict=True):
        strides.append(stride if here else 0)
        stride *= extent if here else 1
    return tuple(reversed(strides))


def sum_to(values: np.ndarray, shape: Shape) -> np.ndarray:
    """int64 sums of `values` over the dimensions along which `shape` was broadcast."""
    padded = (1,) * (values.ndim - len(shape)) + tuple(shape)
    axes = tuple(i for i, (n, m) in enumerate(zip(values.shape, padded, strict=True)) if n != m)
    return values.astype(np.int64).sum(axis=axes, keepdims=True).reshape(shape)
