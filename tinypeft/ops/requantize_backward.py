"""REQUANTIZE_BACKWARD: a gradient through an output's clamp and channel scales, and CLAMP_MASK, which it may read."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinypeft import arithmetic
from tinypeft.ir import Operation
from tinypeft.ops.base import BlockFloat, CArray, KernelCall, Op, Value, register
from tinypeft.ops.mantissas import narrowed, stored


@register
class RequantizeBackward(Op):
    """d_acc = d_output * channel scale where the forward output was not clamped, else 0.

    The clamp is told from `output` (int8) or `mask` (bits); without either there is none. Channel scales are the
    attribute `channel_scale` (constants) or the operands `multiplier` and `exponent`; without either they are 1.
    """

    name = "REQUANTIZE_BACKWARD"
    operands = ("d_output",)
    optional = ("output", "mask", "multiplier", "exponent")
    results = ("d_acc",)
    source = "tp_requantize_backward.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"d_acc": op.output.shape}

    def _fold(self, op: Operation, values: dict[str, Value] | None = None) -> tuple[np.ndarray, int] | None:
        if values is not None and "multiplier" in op.inputs:
            return values["multiplier"], int(values["exponent"][0])
        if op.attributes.get("channel_scale") is None:
            return None
        return arithmetic.channel_fold(op.attributes["channel_scale"])

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        d_output: BlockFloat = values["d_output"]
        mantissa, exponent = d_output.mantissa.astype(np.int64).reshape(op.output.shape), d_output.exponent
        fold = self._fold(op, values)
        if "output" in op.inputs:
            low, high = op.attributes["clamp"]
            passed = (values["output"] > low) & (values["output"] < high)
            mantissa = mantissa * passed.reshape(op.output.shape)
        elif "mask" in op.inputs:
            passed = np.unpackbits(values["mask"], bitorder="little")[: op.output.size]
            mantissa = mantissa * passed.reshape(op.output.shape)
        if fold is None:
            return {"d_acc": stored(op.output, mantissa, exponent)}
        multiplier, fold_exponent = fold
        bound = d_output.peak * int(multiplier.max())
        return {"d_acc": narrowed(op.output, mantissa * multiplier.astype(np.int64), exponent + fold_exponent, bound)}

    def in_place(self, op: Operation) -> dict[str, tuple[str, ...]]:
        return {"d_acc": ("d_output",)}

    def call(self, op: Operation) -> KernelCall:
        channels = op.output.shape[-1] if op.output.shape else 1
        low, high = op.attributes.get("clamp", (0, 0))
        fields: dict[str, Any] = {
            "positions": op.output.size // channels,
            "channels": channels,
            "activation_min": low,
            "activation_max": high,
        }
        fold = self._fold(op)
        if fold is not None:
            fields |= {"multiplier": CArray("int16_t", fold[0]), "exponent": fold[1]}
        extra: list[Any]
        if "multiplier" in op.inputs:
            function, extra = "tp_channel_scale_backward_s16", [op.inputs["multiplier"], op.inputs["exponent"]]
        elif "mask" in op.inputs:
            function, extra = "tp_requantize_backward_mask_s16", [op.inputs["mask"]]
        elif "output" in op.inputs:
            function, extra = "tp_requantize_backward_s16", [op.inputs["output"]]
        else:
            assert fold is not None
            function = "tp_channel_scale_backward_s16"
            exponent = CArray("int32_t", np.array([fold[1]], np.int32), "exponent")
            extra = [CArray("int16_t", fold[0], "multiplier"), exponent]
            fields = {"positions": fields["positions"], "channels": channels}
        arguments = [op.inputs["d_output"], *extra, op.output]
        return KernelCall(function, "tp_requantize_backward_params", fields, arguments)


@register
class ClampMask(Op):
    """One bit an element of an int8 output: 1 where it was not clamped. Kept for the backward pass instead of it."""

    name = "CLAMP_MASK"
    operands = ("output",)
    results = ("mask",)
    source = "tp_requantize_backward.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"mask": op.inputs["output"].shape}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        low, high = op.attributes["clamp"]
        passed = (values["output"] > low) & (values["output"] < high)
        return {"mask": np.packbits(passed.reshape(-1), bitorder="little")}

    def call(self, op: Operation) -> KernelCall:
        low, high = op.attributes["clamp"]
        fields = {"size": op.output.size, "activation_min": low, "activation_max": high}
        return KernelCall("tp_clamp_mask_s8", "tp_clamp_mask_params", fields, [op.inputs["output"], op.output])
