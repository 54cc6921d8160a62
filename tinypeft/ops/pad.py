"""PAD: a constant around a tensor, the zero point unless told; its gradient is the inner part."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinypeft.errors import ModelError
from tinypeft.ir import Operation, Tensor
from tinypeft.ops.base import BlockFloat, Bounds, Builder, KernelCall, Op, Value, register
from tinypeft.ops.channels import monotone_bounds, own_channels
from tinypeft.ops.constraints import constant, require_int8, same_quantization
from tinypeft.ops.strided import Strided, box

Paddings = tuple[tuple[int, int], ...]
#: Most dimensions that LiteRT pads.
RANK_MAX = 5


@register
class Pad(Op):
    """output = input between attributes `paddings`, ((before, after) per dimension), of the int8 `value`."""

    name = "PAD"
    operands = ("input",)
    source = "tp_strided.c"
    limits = f"The paddings must be constant; at most {RANK_MAX} dimensions, as in LiteRT."

    def from_tflite(
        self, options: Any, inputs: list[Tensor | None], outputs: list[Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        require_int8(inputs[0], *outputs)
        assert inputs[0] is not None
        paddings = read_paddings(inputs[0], inputs[1])
        return {"input": inputs[0]}, {"paddings": paddings, "value": outputs[0].zero_point}

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"output": padded(op.inputs["input"].shape, op.attributes["paddings"])}

    def check(self, op: Operation) -> str | None:
        if len(op.output.shape) > RANK_MAX:
            return (
                f"a padding of {len(op.output.shape)} dimensions is not supported, the most is {RANK_MAX} as in LiteRT"
            )
        return same_quantization(op.inputs["input"], op.output)

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        value = np.int8(op.attributes["value"])
        return {"output": np.pad(values["input"], op.attributes["paddings"], constant_values=value)}

    def channel_sources(self, op: Operation) -> dict[str, np.ndarray] | None:
        return own_channels(op) if op.attributes["paddings"][-1] == (0, 0) else None

    def channel_bounds(self, op: Operation, bounds: dict[str, Bounds]) -> Bounds | None:
        return monotone_bounds(op, bounds)

    def vjp(self, op: Operation, d_output: Tensor, builder: Builder) -> dict[str, Tensor]:
        x = op.inputs["input"]
        if not builder.needs(x):
            return {}
        d_input = builder.gradient(x)
        attributes = {"paddings": op.attributes["paddings"]}
        builder.emit("PAD_BACKWARD", op, {"d_output": d_output}, {"d_input": d_input}, attributes)
        return {"input": d_input}

    def call(self, op: Operation) -> KernelCall:
        x, y = op.inputs["input"], op.output
        inner = _inner(x.shape, y.shape, op.attributes["paddings"])
        fields = {"inner": inner.fields(), "size": y.size, "value": op.attributes["value"]}
        return KernelCall("tp_pad_s8", "tp_strided_fill_params", fields, [x, y])


@register
class PadBackward(Op):
    """d_input = d_output without the padding; the exponent stays."""

    name = "PAD_BACKWARD"
    operands = ("d_output",)
    results = ("d_input",)
    source = "tp_strided.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        inverse = tuple((-before, -after) for before, after in op.attributes["paddings"])
        return {"d_input": padded(op.inputs["d_output"].shape, inverse)}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        d_output: BlockFloat = values["d_output"]
        inner = tuple(
            slice(before, extent - after)
            for extent, (before, after) in zip(d_output.mantissa.shape, op.attributes["paddings"], strict=True)
        )
        return {"d_input": BlockFloat(np.ascontiguousarray(d_output.mantissa[inner]), d_output.exponent)}

    def in_place(self, op: Operation) -> dict[str, tuple[str, ...]]:
        return {"d_input": ("d_output",)}

    def call(self, op: Operation) -> KernelCall:
        d_output, d_input = op.inputs["d_output"], op.output
        inner = _inner(d_input.shape, d_output.shape, op.attributes["paddings"])
        return KernelCall("tp_strided_copy_s16", "tp_strided", inner.fields(), [d_output, d_input])


def read_paddings(x: Tensor, amounts: Tensor | None) -> Paddings:
    """((before, after) per dimension of `x`) from an operand; ModelError where they don't suit."""
    flat = constant(amounts, "padding")
    paddings = tuple(zip(flat[0::2], flat[1::2], strict=True))
    if len(paddings) != len(x.shape) or any(n < 0 for n in flat):
        raise ModelError(f"a padding of {paddings} does not suit the shape {x.shape}")
    return paddings


def padded(shape: tuple[int, ...], paddings: Paddings) -> tuple[int, ...]:
    """`shape` with the paddings on both sides."""
    return tuple(before + extent + after for extent, (before, after) in zip(shape, paddings, strict=True))


def _inner(inner: tuple[int, ...], outer: tuple[int, ...], paddings: Paddings) -> Strided:
    return box(outer, tuple(before for before, _ in paddings), inner)
