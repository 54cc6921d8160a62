"""Folding: SPACE_TO_BATCH_ND, convolution, BATCH_TO_SPACE_ND, as older converters write dilation, into one convolution.

A file's operators in, operators out; `fold` is called once, before operations are made of them. The folded convolution
has the dilation itself and explicit padding. It gives the same bits: the elements that SPACE_TO_BATCH_ND adds are the
zero point, which is what a tap outside the image counts for.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinypeft.frontend.flatfile import FileModel, FileOperator, FileTensor
from tinypeft.ops.window import Padding

_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
_VIEWS = ("RESHAPE", "EXPAND_DIMS", "SQUEEZE")


@dataclass(frozen=True)
class FoldedOptions:
    """A convolution's options under the names of TFLite's schema, with `explicit_padding` in place of a mode."""

    dilationHFactor: int  # noqa: N815
    dilationWFactor: int  # noqa: N815
    explicit_padding: Padding
    fusedActivationFunction: int  # noqa: N815
    strideH: int = 1  # noqa: N815
    strideW: int = 1  # noqa: N815


def fold(model: FileModel) -> FileModel:
    """`model` with every such triple as one convolution, where that is exact; else as it is."""
    folding = _Folding(model)
    replaced = {id(operator): folding.fold(operator) for operator in model.operators if operator.kind in _CONVOLUTIONS}
    operators: list[FileOperator] = []
    ends = {id(ops[-1].outputs[0]): ops for ops in replaced.values() if ops}
    for operator in model.operators:
        if not replaced.get(id(operator)):
            operators += ends.get(id(operator.outputs[0]), [operator])
    return dataclasses.replace(model, operators=without_dead(operators, folding.bypassed, model.output))


class _Folding:
    """Finds and folds the triples of one model; `bypassed` are operators that may have become unused."""

    def __init__(self, model: FileModel):
        self.output = model.output
        self.producers = {id(t): operator for operator in model.operators for t in operator.outputs}
        self.consumers: dict[int, list[FileOperator]] = {}
        for operator in model.operators:
            for tensor in operator.inputs:
                self.consumers.setdefault(id(tensor), []).append(operator)
        self.bypassed: list[FileOperator] = []

    def fold(self, convolution: FileOperator) -> list[FileOperator]:
        """The operators that take the place of `convolution` and what is around it; empty where it stays."""
        source, result = convolution.inputs[0], convolution.outputs[0]
        front, back = self._before(source), self._behind(result)
        if source is None or front is None or back is None or (front.kind, back.kind) != (
            "SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND"
        ):  # fmt: skip
            return []
        options = _folded_options(convolution, front, back)
        x, y = front.inputs[0], back.outputs[0]
        if options is None or x is None or not _same_quantization(x, front.outputs[0], source):
            return []
        if not _same_quantization(y, result, back.inputs[0]):
            return []
        self.bypassed += [front, *self._views(source), *self._views(back.inputs[0])]
        inputs = convolution.inputs[1:]
        if len(x.shape) == 4:
            return [FileOperator(convolution.index, convolution.kind, options, [x, *inputs], [y])]
        before, behind = _with_height(x), _with_height(y)
        return [
            FileOperator(front.index, "RESHAPE", None, [x], [before]),
            FileOperator(convolution.index, convolution.kind, options, [before, *inputs], [behind]),
            FileOperator(back.index, "RESHAPE", None, [behind], [y]),
        ]

    def _views(self, tensor: FileTensor | None) -> list[FileOperator]:
        producer = self.producers.get(id(tensor))
        return [producer] if producer is not None and producer.kind in _VIEWS else []

    def _before(self, tensor: FileTensor | None) -> FileOperator | None:
        """What computes `tensor`, through a view."""
        for view in self._views(tensor):
            tensor = view.inputs[0]
        return self.producers.get(id(tensor))

    def _behind(self, tensor: FileTensor) -> FileOperator | None:
        """The only operator that reads `tensor`, through a view."""
        found = None
        for _ in range(2):
            readers = self.consumers.get(id(tensor), [])
            if tensor is self.output or len(readers) != 1:
                return None
            found = readers[0]
            if found.kind not in _VIEWS:
                break
            tensor = found.outputs[0]
        return found


def without_dead(operators: list[FileOperator], bypassed: list[FileOperator], output: FileTensor) -> list[FileOperator]:
    """`operators` without those of `bypassed` that nothing reads any more."""
    kept: list[FileOperator] = []
    read = {id(output)}
    for operator in reversed(operators):
        dead = any(operator is b for b in bypassed) and not any(id(t) in read for t in operator.outputs)
        if not dead:
            kept.append(operator)
            read.update(id(t) for t in operator.inputs)
    return kept[::-1]


def _folded_options(convolution: FileOperator, front: FileOperator, back: FileOperator) -> FoldedOptions | None:
    """The dilation and padding of the folded convolution, None where the shapes rule it out."""
    options, filters = convolution.options, convolution.inputs[1]
    x, inner, y = front.inputs[0], convolution.inputs[0], back.outputs[0]
    block, pads = _constant(front, 1), _constant(front, 2)
    block_back, crops = _constant(back, 1), _constant(back, 2)
    if x is None or inner is None or filters is None or block is None or block != block_back or not pads or not crops:
        return None
    spatial = len(block)
    if len(x.shape) != spatial + 2 or len(y.shape) != len(x.shape) or x.shape[0] != 1 or y.shape[0] != 1:
        return None
    if len(inner.shape) != 4 or inner.shape[0] != math.prod(block) or (options.strideH, options.strideW) != (1, 1):
        return None
    if spatial == 1:  # a convolution over time, with a height of 1
        block, pads, crops = [1, *block], [0, 0, *pads], [0, 0, *crops]
    elif spatial != 2:
        return None
    heights, widths = ([1, x.shape[1]], [1, y.shape[1]]) if spatial == 1 else (x.shape[1:3], y.shape[1:3])
    dilations, padding = [], []
    for axis, dilation in enumerate((options.dilationHFactor, options.dilationWFactor)):
        size, output, step, taps = heights[axis], widths[axis], block[axis], filters.shape[1 + axis]
        (front_pad, back_pad), (front_crop, back_crop) = pads[2 * axis : 2 * axis + 2], crops[2 * axis : 2 * axis + 2]
        extent = (taps - 1) * dilation
        inner_pad = extent if options.padding == 0 else 0
        inner_output = inner.shape[1 + axis] + inner_pad - extent
        found = inner.shape[1 + axis] * step, convolution.outputs[0].shape[1 + axis], output
        if found != (size + front_pad + back_pad, inner_output, inner_output * step - front_crop - back_crop):
            return None
        top = front_pad - front_crop + inner_pad // 2 * step
        dilations.append(dilation * step)
        padding.append((top, output - 1 + extent * step + 1 - size - top))
    return FoldedOptions(dilations[0], dilations[1], (padding[0], padding[1]), options.fusedActivationFunction)


def _constant(operator: FileOperator, position: int) -> list[int] | None:
    """The values of a constant int32 operand, flat; None where there is none."""
    tensor = operator.inputs[position] if position < len(operator.inputs) else None
    if tensor is None or tensor.raw is None or tensor.type != "INT32":
        return None
    return [int(value) for value in np.frombuffer(tensor.raw, "<i4")]


def _same_quantization(*tensors: FileTensor | None) -> bool:
    """Whether all have the type, scales and zero points of the first."""
    forms = [(t.type, t.scale.tolist(), t.zero_point.tolist()) if t is not None else None for t in tensors]
    return all(form == forms[0] for form in forms)


def _with_height(tensor: FileTensor) -> FileTensor:
    """A tensor (1,T,C) as (1,1,T,C), which no file holds."""
    shape: Any = (1, *tensor.shape)
    return dataclasses.replace(tensor, index=-1, shape=shape, raw=None)
