"""GATHER: chosen elements of one axis, or of two that adjoin; its gradient adds up the copies of each."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinypeft.arithmetic import accumulator_shift, round_half_up_shift
from tinypeft.errors import ModelError
from tinypeft.ir import Operation, Tensor
from tinypeft.ops.base import BlockFloat, Builder, CArray, KernelCall, Op, Value, register
from tinypeft.ops.constraints import constant, require_int8, same_quantization
from tinypeft.ops.mantissas import narrowed

#: Most copies of one element that can be trained through.
MAX_COPIES = 1 << 16


@register
class Gather(Op):
    """Elements `indices[0]` of the attribute `axis` (and `indices[1]` of the next), as attribute `shape`."""

    name = "GATHER"
    operands = ("input",)
    source = "tp_gather.c"
    limits = "The indices must be constant, without batch dimensions."

    def from_tflite(
        self, options: Any, inputs: list[Tensor | None], outputs: list[Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        require_int8(inputs[0], *outputs)
        x, chosen = inputs[0], inputs[1]
        assert x is not None
        indices = tuple(constant(chosen, "indices of a gather"))
        assert chosen is not None
        rank = len(x.shape)
        axis = int(options.axis) + (rank if options.axis < 0 else 0)
        if options.batchDims:
            raise ModelError(f"a gather with {options.batchDims} batch dimensions is not supported")
        if not 0 <= axis < rank or not all(0 <= i < x.shape[axis] for i in indices):
            raise ModelError(
                f"a gather of the indices {indices} from axis {options.axis} of {x.shape} reads outside it"
            )
        shape = (*x.shape[:axis], *chosen.shape, *x.shape[axis + 1 :])
        return {"input": x}, {"axis": axis, "indices": (indices,), "shape": shape}

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"output": tuple(op.attributes["shape"])}

    def check(self, op: Operation) -> str | None:
        return same_quantization(op.inputs["input"], op.output)

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        result = values["input"]
        for axis, chosen in enumerate(op.attributes["indices"], op.attributes["axis"]):
            result = result.take(chosen, axis)
        return {"output": result.reshape(op.attributes["shape"])}

    def vjp(self, op: Operation, d_output: Tensor, builder: Builder) -> dict[str, Tensor]:
        x = op.inputs["input"]
        if not builder.needs(x):
            return {}
        d_input = builder.gradient(x)
        attributes = {"axis": op.attributes["axis"], "indices": op.attributes["indices"], "shape": x.shape}
        builder.emit("GATHER_BACKWARD", op, {"d_output": d_output}, {"d_input": d_input}, attributes)
        return {"input": d_input}

    def call(self, op: Operation) -> KernelCall:
        shape = op.inputs["input"].shape
        fields = _extents(op, shape)
        for name, extent, chosen in _axes(op, shape):
            index = CArray("int32_t", np.array(chosen, np.int32), "index")
            fields[name] = {"input": extent, "output": len(chosen), "index": index}
        return KernelCall("tp_gather_s8", "tp_gather_params", fields, [op.inputs["input"], op.output])


@register
class GatherBackward(Op):
    """d_input = the sum of d_output over the copies of each element."""

    name = "GATHER_BACKWARD"
    operands = ("d_output",)
    results = ("d_input",)
    source = "tp_gather.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"d_input": tuple(op.attributes["shape"])}

    def check(self, op: Operation) -> str | None:
        copies = self._overlap(op)
        if copies > MAX_COPIES:
            return f"a gather of {copies} copies of one element cannot be trained through, the most is {MAX_COPIES}"
        return None

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        d_output: BlockFloat = values["d_output"]
        overlap = self._overlap(op)
        narrow = accumulator_shift(d_output.peak, overlap)
        bound = int(round_half_up_shift(d_output.peak, narrow)) * overlap
        extents = _extents(op, op.output.shape)
        (_, height, rows), (_, width, columns) = _axes(op, op.output.shape)
        mantissa = round_half_up_shift(d_output.mantissa, narrow)
        mantissa = mantissa.reshape(extents["outer"], len(rows), len(columns), extents["inner"])
        acc = np.zeros((extents["outer"], height, width, extents["inner"]), np.int64)
        np.add.at(acc, np.ix_(range(extents["outer"]), rows, columns), mantissa)
        return {"d_input": narrowed(op.output, acc, d_output.exponent + narrow, bound)}

    def call(self, op: Operation) -> KernelCall:
        fields = _extents(op, op.output.shape) | {"overlap": self._overlap(op)}
        for name, extent, chosen in _axes(op, op.output.shape):
            copies = np.bincount(chosen, minlength=extent)
            begin = np.concatenate([[0], np.cumsum(copies)]).astype(np.int32)
            member = np.argsort(chosen, kind="stable").astype(np.int32)
            fields[name] = {
                "input": extent,
                "output": len(chosen),
                "begin": CArray("int32_t", begin, "begin"),
                "member": CArray("int32_t", member, "member"),
            }
        arguments: list[Any] = [op.inputs["d_output"], op.output]
        return KernelCall("tp_gather_backward_s16", "tp_gather_backward_params", fields, arguments)

    def macs(self, op: Operation) -> int:
        return op.inputs["d_output"].size

    def _overlap(self, op: Operation) -> int:
        return math.prod(int(np.bincount(chosen).max()) for chosen in op.attributes["indices"])


def _extents(op: Operation, shape: tuple[int, ...]) -> dict[str, Any]:
    """The elements in front of and behind the axes of an input of `shape`."""
    axis = op.attributes["axis"]
    return {"outer": math.prod(shape[:axis]), "inner": math.prod(shape[axis + len(op.attributes["indices"]) :])}


def _axes(op: Operation, shape: tuple[int, ...]) -> list[tuple[str, int, tuple[int, ...]]]:
    """(name, extent of the input, indices) of rows and columns; of a single axis as rows, with one column."""
    axis, indices = op.attributes["axis"], op.attributes["indices"]
    rows = ("rows", shape[axis], tuple(indices[0]))
    columns = ("columns", shape[axis + 1], tuple(indices[1])) if len(indices) == 2 else ("columns", 1, (0,))
    return [rows, columns]
