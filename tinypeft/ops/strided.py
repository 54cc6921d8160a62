"""Elements of an array that lie in fixed steps, as a dense array: the struct tp_strided. Defines no operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinypeft.ops.base import CArray

#: Most axes that a kernel steps along (TP_RANK_MAX).
RANK_MAX = 8


@dataclass(frozen=True)
class Strided:
    """Element (i, j, ...) of shape `extents` lies at offset + i*strides[0] + j*strides[1] + ... of the array."""

    extents: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    def merged(self) -> Strided:
        """The same elements in the same order along as few axes as possible, at least one."""
        axes: list[tuple[int, int]] = []
        for extent, stride in zip(self.extents, self.strides, strict=True):
            if extent == 1:
                continue
            if axes and axes[-1][1] == extent * stride:
                extent *= axes.pop()[0]
            axes.append((extent, stride))
        extents, strides = zip(*(axes or [(1, 1)]), strict=True)
        return Strided(extents, strides, self.offset)

    @property
    def contiguous(self) -> bool:
        """Whether the elements lie side by side, in order."""
        return self.merged().strides == (1,)

    @property
    def rising(self) -> bool:
        """Whether they come in the order in which they lie, so that they can be moved to the front in place."""
        merged = self.merged()
        beyond = 0  # from the first to the last element of the axes behind
        for extent, stride in zip(merged.extents[::-1], merged.strides[::-1], strict=True):
            if stride <= beyond:
                return False
            beyond += (extent - 1) * stride
        return True

    def fields(self) -> dict[str, Any]:
        """The fields of the C struct tp_strided."""
        merged = self.merged()
        return {
            "rank": len(merged.extents),
            "extent": CArray("int32_t", np.array(merged.extents, np.int32), "extent"),
            "stride": CArray("int32_t", np.array(merged.strides, np.int32), "stride"),
            "offset": merged.offset,
        }


def dense_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Elements from one index to the next, for each axis of a dense array."""
    strides = [1]
    for extent in shape[:0:-1]:
        strides.insert(0, strides[0] * extent)
    return tuple(strides[: len(shape)])


def box(
    shape: tuple[int, ...], begin: tuple[int, ...], extents: tuple[int, ...], steps: tuple[int, ...] | None = None
) -> Strided:
    """The elements `begin`, `begin + steps`, ... (1 unless told), `extents` of each axis, of an array of `shape`."""
    strides = dense_strides(shape)
    offset = sum(b * s for b, s in zip(begin, strides, strict=True))
    scaled = strides if steps is None else tuple(s * step for s, step in zip(strides, steps, strict=True))
    return Strided(extents, scaled, offset)
