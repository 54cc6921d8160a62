"""PAD: zeros around an image or its channels, as the zero point; its gradient is the inner part."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinypeft.errors import ModelError
from tinypeft.ir import Operation, Tensor
from tinypeft.ops.base import BlockFloat, Builder, KernelCall, Op, Value, register
from tinypeft.ops.constraints import constant, require_int8, same_quantization

Paddings = tuple[tuple[int, int], ...]


@register
class Pad(Op):
    """output = input between attributes `paddings`, ((before, after) per dimension)."""

    name = "PAD"
    operands = ("input",)
    source = "tp_pad.c"

    def from_tflite(
        self, options: Any, inputs: list[Tensor | None], outputs: list[Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        require_int8(inputs[0], *outputs)
        x = inputs[0]
        assert x is not None
        flat = constant(inputs[1], "padding")
        paddings = tuple(zip(flat[0::2], flat[1::2], strict=True))
        if len(paddings) != len(x.shape) or not 2 <= len(paddings) <= 4 or paddings[0] != (0, 0):
            raise ModelError(
                f"a padding of {paddings} for shape {x.shape} is not supported", "pad height, width or channels"
            )
        return {"input": x}, {"paddings": paddings}

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"output": _padded(op.inputs["input"].shape, op.attributes["paddings"])}

    def check(self, op: Operation) -> str | None:
        return same_quantization(op.inputs["input"], op.output)

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        x = values["input"]
        return {"output": np.pad(x, op.attributes["paddings"], constant_values=np.int8(op.output.zero_point))}

    def vjp(self, op: Operation, d_output: Tensor, builder: Builder) -> dict[str, Tensor]:
        x = op.inputs["input"]
        if not builder.needs(x):
            return {}
        d_input = builder.gradient(x)
        attributes = {"paddings": op.attributes["paddings"]}
        builder.emit("PAD_BACKWARD", op, {"d_output": d_output}, {"d_input": d_input}, attributes)
        return {"input": d_input}

    def call(self, op: Operation) -> KernelCall:
        x, y = op.inputs["input"], op.outputs["output"]
        fields = _fields(x.shape, y.shape, op.attributes["paddings"], y.zero_point)
        return KernelCall("tp_pad_s8", "tp_pad_params", {**fields}, [x, y])


@register
class PadBackward(Op):
    """d_input = d_output without the padding; the exponent stays."""

    name = "PAD_BACKWARD"
    operands = ("d_output",)
    results = ("d_input",)
    source = "tp_pad.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        inverse = tuple((-before, -after) for before, after in op.attributes["paddings"])
        return {"d_input": _padded(op.inputs["d_output"].shape, inverse)}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        d_output: BlockFloat = values["d_output"]
        inner = tuple(
            slice(before, extent - after)
            for extent, (before, after) in zip(d_output.mantissa.shape, op.attributes["paddings"], strict=True)
        )
        return {"d_input": BlockFloat(d_output.mantissa[inner], d_output.exponent)}

    def in_place(self, op: Operation) -> dict[str, tuple[str, ...]]:
        return {"d_input": ("d_output",)}

    def call(self, op: Operation) -> KernelCall:
        d_output, d_input = op.inputs["d_output"], op.outputs["d_input"]
        fields = _fields(d_input.shape, d_output.shape, op.attributes["paddings"], 0)
        return KernelCall("tp_pad_backward_s16", "tp_pad_params", {**fields}, [d_output, d_input])


def _padded(shape: tuple[int, ...], paddings: Paddings) -> tuple[int, ...]:
    return tuple(before + extent + after for extent, (before, after) in zip(shape, paddings, strict=True))


def _fields(inner: tuple[int, ...], outer: tuple[int, ...], paddings: Paddings, value: int) -> dict[str, int]:
    missing = 4 - len(inner)
    h, w, c = ((1,) * missing + inner[1:])[-3:]
    padded_h, padded_w, padded_c = ((1,) * missing + outer[1:])[-3:]
    top, left, front = ((0,) * missing + tuple(before for before, _ in paddings[1:]))[-3:]
    return {
        "h": h, "w": w, "c": c,
        "padded_h": padded_h, "padded_w": padded_w, "padded_c": padded_c,
        "top": top, "left": left, "front": front, "value": value,
    }  # fmt: skip
