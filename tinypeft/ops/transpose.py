"""TRANSPOSE: the axes in another order; its gradient has them back."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinypeft.errors import ModelError
from tinypeft.ir import Operation, Tensor
from tinypeft.ops.base import BlockFloat, Builder, KernelCall, Op, Value, register
from tinypeft.ops.constraints import constant, require_int8, same_quantization
from tinypeft.ops.strided import RANK_MAX, Strided, dense_strides


@register
class Transpose(Op):
    """Axis i of the output is axis `permutation[i]` of the input."""

    name = "TRANSPOSE"
    operands = ("input",)
    source = "tp_strided.c"
    limits = "The permutation must be constant."

    def from_tflite(
        self, options: Any, inputs: list[Tensor | None], outputs: list[Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        require_int8(inputs[0], *outputs)
        x = inputs[0]
        assert x is not None
        rank = len(x.shape)
        given = constant(inputs[1], "permutation")
        permutation = tuple(axis + rank if axis < 0 else axis for axis in given)
        if sorted(permutation) != list(range(rank)):
            raise ModelError(f"the permutation {tuple(given)} is none of the axes of shape {x.shape}")
        return {"input": x}, {"permutation": permutation}

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        shape = op.inputs["input"].shape
        return {"output": tuple(shape[axis] for axis in op.attributes["permutation"])}

    def check(self, op: Operation) -> str | None:
        x = op.inputs["input"]
        if len(x.shape) > RANK_MAX:
            return f"{x.name} has {len(x.shape)} dimensions, the most is {RANK_MAX}"
        return same_quantization(x, op.output)

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        return {"output": np.ascontiguousarray(values["input"].transpose(op.attributes["permutation"]))}

    def vjp(self, op: Operation, d_output: Tensor, builder: Builder) -> dict[str, Tensor]:
        x = op.inputs["input"]
        if not builder.needs(x):
            return {}
        d_input = builder.gradient(x)
        inverse = tuple(int(axis) for axis in np.argsort(op.attributes["permutation"]))
        attributes = {"permutation": inverse}
        builder.emit("TRANSPOSE_BACKWARD", op, {"d_output": d_output}, {"d_input": d_input}, attributes)
        return {"input": d_input}

    def view(self, op: Operation) -> tuple[str, int] | None:
        x = op.inputs["input"]
        return ("input", 0) if x.in_arena and _strided(x, op.attributes["permutation"]).contiguous else None

    def in_place(self, op: Operation) -> dict[str, tuple[str, ...]]:
        return {"output": ("input",)} if _strided(op.inputs["input"], op.attributes["permutation"]).contiguous else {}

    def call(self, op: Operation) -> KernelCall:
        fields = _strided(op.inputs["input"], op.attributes["permutation"]).fields()
        return KernelCall("tp_strided_copy_s8", "tp_strided", fields, [op.inputs["input"], op.output])


@register
class TransposeBackward(Op):
    """d_input = d_output with its axes in the order `permutation`; the exponent stays."""

    name = "TRANSPOSE_BACKWARD"
    operands = ("d_output",)
    results = ("d_input",)
    source = "tp_strided.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        shape = op.inputs["d_output"].shape
        return {"d_input": tuple(shape[axis] for axis in op.attributes["permutation"])}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        d_output: BlockFloat = values["d_output"]
        mantissa = np.ascontiguousarray(d_output.mantissa.transpose(op.attributes["permutation"]))
        return {"d_input": BlockFloat(mantissa, d_output.exponent)}

    def in_place(self, op: Operation) -> dict[str, tuple[str, ...]]:
        contiguous = _strided(op.inputs["d_output"], op.attributes["permutation"]).contiguous
        return {"d_input": ("d_output",)} if contiguous else {}

    def call(self, op: Operation) -> KernelCall:
        fields = _strided(op.inputs["d_output"], op.attributes["permutation"]).fields()
        return KernelCall("tp_strided_copy_s16", "tp_strided", fields, [op.inputs["d_output"], op.output])


def _strided(x: Tensor, permutation: tuple[int, ...]) -> Strided:
    strides = dense_strides(x.shape)
    return Strided(tuple(x.shape[axis] for axis in permutation), tuple(strides[axis] for axis in permutation))
