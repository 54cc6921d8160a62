"""Reductions over any axes of a tensor: which elements belong to one result. Defines no operator."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tinypeft.errors import ModelError
from tinypeft.ir import Operation, Tensor
from tinypeft.ops.constraints import constant, require_int8

#: Runs of adjoining axes, kept or reduced, that the kernels walk over: enough for every tensor of rank 6.
MAX_RUNS = 3


@dataclass(frozen=True)
class Reduction:
    """A reduction as nested loops: (extent, stride) of the kept and of the reduced axes, outermost first.

    Axes of extent 1 are left out and adjoining ones of a kind are merged.
    """

    kept: tuple[tuple[int, int], ...]
    reduced: tuple[tuple[int, int], ...]

    @property
    def count(self) -> int:
        """Elements of one result."""
        return math.prod(extent for extent, _ in self.reduced)

    @property
    def results(self) -> int:
        """Number of results."""
        return math.prod(extent for extent, _ in self.kept)

    @property
    def over_rows(self) -> bool:
        """Whether the input is (count, results) as it lies in memory."""
        return len(self.kept) <= 1 and len(self.reduced) <= 1 and all(stride == 1 for _, stride in self.kept)

    def fields(self) -> dict[str, dict[str, int]]:
        """The fields `kept` and `reduced` of a kernel's parameters, the struct tp_axes."""
        return {"kept": _axes(self.kept), "reduced": _axes(self.reduced)}


def reduction(shape: tuple[int, ...], axes: tuple[int, ...]) -> Reduction:
    """The loops of a reduction of `shape` over `axes`, which are sorted."""
    runs: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
    last = None
    for axis, extent in enumerate(shape):
        if extent == 1:
            continue
        stride = math.prod(shape[axis + 1 :])
        kind = axis in axes
        if kind == last:
            runs[kind][-1] = runs[kind][-1][0] * extent, stride
        else:
            runs[kind].append((extent, stride))
        last = kind
    return Reduction(tuple(runs[0]), tuple(runs[1]))


def reduction_from_tflite(
    options: Any, inputs: list[Tensor | None], outputs: list[Tensor]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(operands, attributes) of a reduction; the attributes are `axes`, sorted and at least 0, and `keep_dims`."""
    require_int8(inputs[0], *outputs)
    x = inputs[0]
    assert x is not None
    rank = len(x.shape)
    given = constant(inputs[1], "axes of a reduction")
    if not all(-rank <= axis < rank for axis in given):
        raise ModelError(f"the axes {given} are not all axes of shape {x.shape}", "export the model again")
    axes = tuple(sorted({axis % rank for axis in given}))
    loops = reduction(x.shape, axes)
    if max(len(loops.kept), len(loops.reduced)) > MAX_RUNS:
        raise ModelError(f"a reduction of shape {x.shape} over the axes {axes} is not supported", "use fewer axes")
    return {"input": x}, {"axes": axes, "keep_dims": bool(options.keepDims)}


def loops_of(op: Operation) -> Reduction:
    """The loops of a reduction, or of its gradient, whose attribute `shape` is the input's."""
    return reduction(op.attributes.get("shape") or op.inputs["input"].shape, op.attributes["axes"])


def reduced_shape(op: Operation) -> tuple[int, ...]:
    """The shape of a reduction's output."""
    axes, keep = op.attributes["axes"], op.attributes["keep_dims"]
    shape = op.inputs["input"].shape
    return tuple(1 if i in axes else n for i, n in enumerate(shape) if keep or i not in axes)


def kept_dims(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    """`shape` with 1 in place of the reduced axes, so that results spread over them."""
    return tuple(1 if i in axes else n for i, n in enumerate(shape))


def _axes(runs: tuple[tuple[int, int], ...]) -> dict[str, int]:
    padded = ((1, 0),) * (MAX_RUNS - len(runs)) + runs
    return {f"n{i}": n for i, (n, _) in enumerate(padded)} | {f"s{i}": s for i, (_, s) in enumerate(padded)}
