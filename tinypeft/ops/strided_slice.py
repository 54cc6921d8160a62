"""STRIDED_SLICE: a part of a tensor, in steps; its gradient is zero around that part."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinypeft.errors import ModelError
from tinypeft.ir import Operation, Tensor
from tinypeft.ops.base import BlockFloat, Builder, KernelCall, Op, Value, register
from tinypeft.ops.constraints import constant, require_int8, same_quantization
from tinypeft.ops.strided import RANK_MAX, Strided, box


@dataclass(frozen=True)
class Region:
    """Of each axis of an array the elements begin, begin + step, ..., `extents` of them; steps may be negative."""

    begin: tuple[int, ...]
    steps: tuple[int, ...]
    extents: tuple[int, ...]

    @property
    def slices(self) -> tuple[slice, ...]:
        """The index of a NumPy array."""
        found = []
        for begin, step, extent in zip(self.begin, self.steps, self.extents, strict=True):
            end = begin + step * extent
            found.append(slice(begin, None if end < 0 else end, step))
        return tuple(found)

    def strided(self, shape: tuple[int, ...]) -> Strided:
        """Where the elements lie in an array of `shape`."""
        return box(shape, self.begin, self.extents, self.steps)

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether all lie inside an array of `shape`."""
        ends = [b + s * (n - 1) for b, s, n in zip(self.begin, self.steps, self.extents, strict=True)]
        return len(shape) == len(ends) and all(
            n >= 1 and 0 <= min(b, e) and max(b, e) < extent
            for b, e, n, extent in zip(self.begin, ends, self.extents, shape, strict=True)
        )


@register
class StridedSlice(Op):
    """Attribute `region` of the input, as attribute `shape`."""

    name = "STRIDED_SLICE"
    operands = ("input",)
    source = "tp_strided.c"
    limits = "The begin, end and strides must be constant."

    def from_tflite(
        self, options: Any, inputs: list[Tensor | None], outputs: list[Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        require_int8(inputs[0], *outputs)
        x = inputs[0]
        assert x is not None
        begin, end, strides = (
            constant(t, f"{meaning} of a slice")
            for t, meaning in zip(inputs[1:], ("begin", "end", "strides"), strict=True)
        )
        region, shape = read_region(x.shape, begin, end, strides, options)
        if shape != outputs[0].shape:
            raise ModelError(f"the slice of {x.shape} has shape {shape}, the file says {outputs[0].shape}")
        return {"input": x}, {"region": region, "shape": shape}

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"output": tuple(op.attributes["shape"])}

    def check(self, op: Operation) -> str | None:
        x, region = op.inputs["input"], op.attributes["region"]
        if not region.fits(x.shape) or math.prod(region.extents) != op.output.size:
            return f"the slice {region} does not fit {x.name} of shape {x.shape} and {op.output.shape}"
        if len(x.shape) > RANK_MAX:
            return f"{x.name} has {len(x.shape)} dimensions, the most is {RANK_MAX}"
        return same_quantization(x, op.output)

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        part = values["input"][op.attributes["region"].slices]
        return {"output": np.ascontiguousarray(part).reshape(op.attributes["shape"])}

    def vjp(self, op: Operation, d_output: Tensor, builder: Builder) -> dict[str, Tensor]:
        x = op.inputs["input"]
        if not builder.needs(x):
            return {}
        d_input = builder.gradient(x)
        attributes = {"region": op.attributes["region"], "shape": x.shape}
        builder.emit("STRIDED_SLICE_BACKWARD", op, {"d_output": d_output}, {"d_input": d_input}, attributes)
        return {"input": d_input}

    def in_place(self, op: Operation) -> dict[str, tuple[str, ...]]:
        return {"output": ("input",)} if self._strided(op).rising else {}

    def view(self, op: Operation) -> tuple[str, int] | None:
        strided = self._strided(op)
        return ("input", strided.offset) if strided.contiguous and op.inputs["input"].in_arena else None

    def call(self, op: Operation) -> KernelCall:
        arguments: list[Any] = [op.inputs["input"], op.output]
        return KernelCall("tp_strided_copy_s8", "tp_strided", self._strided(op).fields(), arguments)

    def _strided(self, op: Operation) -> Strided:
        region: Region = op.attributes["region"]
        return region.strided(op.inputs["input"].shape)


@register
class StridedSliceBackward(Op):
    """d_input = zeros of attribute `shape`, with d_output in their `region`; the exponent stays."""

    name = "STRIDED_SLICE_BACKWARD"
    operands = ("d_output",)
    results = ("d_input",)
    source = "tp_strided.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"d_input": tuple(op.attributes["shape"])}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        d_output: BlockFloat = values["d_output"]
        region: Region = op.attributes["region"]
        mantissa = np.zeros(op.attributes["shape"], d_output.mantissa.dtype)
        mantissa[region.slices] = d_output.mantissa.reshape(region.extents)
        return {"d_input": BlockFloat(mantissa, d_output.exponent)}

    def call(self, op: Operation) -> KernelCall:
        region: Region = op.attributes["region"]
        fields = {"inner": region.strided(op.output.shape).fields(), "size": op.output.size, "value": 0}
        arguments: list[Any] = [op.inputs["d_output"], op.output]
        return KernelCall("tp_strided_scatter_s16", "tp_strided_fill_params", fields, arguments)


def read_region(
    shape: tuple[int, ...], begin: list[int], end: list[int], strides: list[int], options: Any
) -> tuple[Region, tuple[int, ...]]:
    """(region, shape of the result) of TFLite's begin, end and strides with its masks, for an input of `shape`."""
    rank = len(shape)
    new_axes, ellipsis = int(options.newAxisMask), int(options.ellipsisMask)
    if not len(begin) == len(end) == len(strides):
        raise ModelError(f"a slice has {len(begin)} begins, {len(end)} ends and {len(strides)} strides")
    taken = sum(not (new_axes | ellipsis) >> i & 1 for i in range(len(begin)))
    if taken > rank or ellipsis & (ellipsis - 1):
        raise ModelError(f"a slice with begin {begin} and the masks of its file does not fit an input of shape {shape}")
    if ellipsis and taken == rank:
        raise ModelError("a slice has an ellipsis that stands for no axis, which LiteRT reads as one", "leave it out")
    starts: list[int] = []
    steps: list[int] = []
    extents: list[int] = []
    result: list[int] = []

    def whole(extent: int) -> None:
        starts.append(0)
        steps.append(1)
        extents.append(extent)
        result.append(extent)

    for i, (first, last, step) in enumerate(zip(begin, end, strides, strict=True)):
        if ellipsis >> i & 1:
            for extent in shape[len(starts) : len(starts) + rank - taken]:
                whole(extent)
            continue
        if new_axes >> i & 1:
            result.append(1)
            continue
        extent, shrunk = shape[len(starts)], options.shrinkAxisMask >> i & 1
        start, count = _axis(
            extent, None if options.beginMask >> i & 1 else first,
            None if options.endMask >> i & 1 else first + last if options.offset else last, step, bool(shrunk),
        )  # fmt: skip
        if count < 1:
            raise ModelError(f"the slice {first}:{last}:{step} of {extent} elements is empty")
        starts.append(start)
        steps.append(step)
        extents.append(count)
        result += [] if shrunk else [count]
    for extent in shape[len(starts) :]:
        whole(extent)
    return Region(tuple(starts), tuple(steps), tuple(extents)), tuple(result)


def _axis(extent: int, first: int | None, last: int | None, step: int, shrunk: bool) -> tuple[int, int]:
    """(start, count) of first:last:step as in Python; one element where the axis is shrunk."""
    if step == 0:
        raise ModelError("a slice has a stride of 0")
    if shrunk and first is not None:
        return (first + extent if first < 0 else first), 1
    chosen = range(extent)[slice(first, last, step)]
    return (chosen.start, 1) if shrunk else (chosen.start, len(chosen))
