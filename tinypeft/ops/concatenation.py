"""CONCATENATION: tensors side by side along an axis; their gradients are the parts of its gradient."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinypeft.errors import ModelError
from tinypeft.ir import Operation, Tensor
from tinypeft.ops.activation import activation_from_tflite
from tinypeft.ops.base import BlockFloat, Bounds, Builder, CArray, KernelCall, Op, Value, register
from tinypeft.ops.constraints import require_int8, same_quantization
from tinypeft.ops.strided import Strided, box


@register
class Concatenation(Op):
    """The inputs side by side along the attribute `axis`; any of them may be constant."""

    name = "CONCATENATION"
    variadic = "input"
    source = "tp_concatenation.c"
    limits = "The inputs must have the output's scale and zero point, and there is no fused activation, as in LiteRT."

    def from_tflite(
        self, options: Any, inputs: list[Tensor | None], outputs: list[Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        require_int8(*inputs, *outputs)
        given = [x for x in inputs if x is not None]
        rank = len(outputs[0].shape)
        axis = int(options.axis) + (rank if options.axis < 0 else 0)
        activation = activation_from_tflite(options)
        if activation != "NONE":
            raise ModelError(
                f"a concatenation with a fused {activation} is not supported, in LiteRT neither",
                "put the activation behind it as an operator of its own",
            )
        if not given or not 0 <= axis < rank:
            raise ModelError(f"a concatenation of {len(given)} tensors along axis {options.axis} of {outputs[0].shape}")
        return {f"input{i}": x for i, x in enumerate(given)}, {"axis": axis}

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        axis, shapes = op.attributes["axis"], [x.shape for x in op.inputs.values()]
        total = sum(shape[axis] for shape in shapes)
        return {"output": (*shapes[0][:axis], total, *shapes[0][axis + 1 :])}

    def check(self, op: Operation) -> str | None:
        axis, inputs = op.attributes["axis"], list(op.inputs.values())
        for x in inputs:
            if len(x.shape) != len(op.output.shape) or any(
                i != axis and extent != op.output.shape[i] for i, extent in enumerate(x.shape)
            ):
                return f"{x.name} has shape {x.shape}, which cannot be part of {op.output.shape} along axis {axis}"
            if complaint := same_quantization(x, op.output):
                return complaint
        return None

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        return {"output": np.concatenate([values[name] for name in op.inputs], axis=op.attributes["axis"])}

    def channel_sources(self, op: Operation) -> dict[str, np.ndarray] | None:
        if op.attributes["axis"] != len(op.output.shape) - 1:
            return {name: np.arange(op.output.shape[-1]) for name in op.inputs}
        sources = {}
        for name, begin in self._begins(op).items():
            channel, count = np.arange(op.output.shape[-1]) - begin, op.inputs[name].shape[-1]
            sources[name] = np.where((channel >= 0) & (channel < count), channel, -1)
        return sources

    def channel_bounds(self, op: Operation, bounds: dict[str, Bounds]) -> Bounds | None:
        if set(bounds) != set(op.inputs):
            return None
        lows, highs = ([getattr(bounds[name], end) for name in op.inputs] for end in ("low", "high"))
        if op.attributes["axis"] != len(op.output.shape) - 1:
            return Bounds(np.min(lows, axis=0), np.max(highs, axis=0))
        return Bounds(np.concatenate(lows), np.concatenate(highs))

    def vjp(self, op: Operation, d_output: Tensor, builder: Builder) -> dict[str, Tensor]:
        gradients = {}
        for name, begin in self._begins(op).items():
            x = op.inputs[name]
            if builder.needs(x):
                gradients[name] = builder.gradient(x)
                attributes = {"axis": op.attributes["axis"], "begin": begin, "shape": x.shape}
                operands, results = {"d_output": d_output}, {"d_input": gradients[name]}
                builder.emit("CONCATENATION_BACKWARD", op, operands, results, attributes)
        return gradients

    def inside(self, op: Operation) -> dict[str, int]:
        axis = op.attributes["axis"]
        if math.prod(op.output.shape[:axis]) != 1:
            return {}
        behind = math.prod(op.output.shape[axis + 1 :])
        inputs = list(op.inputs.values())
        return {
            name: begin * behind
            for name, begin in self._begins(op).items()
            if op.inputs[name].in_arena and sum(x is op.inputs[name] for x in inputs) == 1
        }

    def call(self, op: Operation) -> KernelCall:
        axis, inputs = op.attributes["axis"], tuple(op.inputs.values())
        sizes = np.array([math.prod(x.shape[axis:]) for x in inputs], np.int32)
        fields = {
            "count": len(inputs),
            "outer": math.prod(op.output.shape[:axis]),
            "size": CArray("int32_t", sizes, "size"),
        }
        return KernelCall("tp_concatenation_s8", "tp_concatenation_params", fields, [inputs, op.output])

    def _begins(self, op: Operation) -> dict[str, int]:
        """Where each operand begins along the axis."""
        begins, begin = {}, 0
        for name, x in op.inputs.items():
            begins[name] = begin
            begin += x.shape[op.attributes["axis"]]
        return begins


@register
class ConcatenationBackward(Op):
    """d_input = the part of d_output that begins at `begin` of `axis`, of attribute `shape`; the exponent stays."""

    name = "CONCATENATION_BACKWARD"
    operands = ("d_output",)
    results = ("d_input",)
    source = "tp_strided.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"d_input": tuple(op.attributes["shape"])}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        d_output: BlockFloat = values["d_output"]
        axis, begin = op.attributes["axis"], op.attributes["begin"]
        part = d_output.mantissa.take(range(begin, begin + op.attributes["shape"][axis]), axis)
        return {"d_input": BlockFloat(part, d_output.exponent)}

    def in_place(self, op: Operation) -> dict[str, tuple[str, ...]]:
        return {"d_input": ("d_output",)}

    def call(self, op: Operation) -> KernelCall:
        arguments: list[Any] = [op.inputs["d_output"], op.output]
        return KernelCall("tp_strided_copy_s16", "tp_strided", self._part(op).fields(), arguments)

    def _part(self, op: Operation) -> Strided:
        axis, shape = op.attributes["axis"], op.attributes["shape"]
        begin = tuple(op.attributes["begin"] if i == axis else 0 for i in range(len(shape)))
        return box(op.inputs["d_output"].shape, begin, tuple(shape))
