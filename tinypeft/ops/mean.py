"""MEAN over height and width (or over time): int8, with its own output scale."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinypeft.arithmetic import (
    channel_fold,
    narrow_shift,
    quantize_multiplier,
    requantize_double,
    round_half_up_shift,
)
from tinypeft.errors import ModelError
from tinypeft.ir import Operation, Tensor
from tinypeft.ops.activation import INT8_MAX, INT8_MIN, saturate
from tinypeft.ops.base import BlockFloat, Builder, KernelCall, Op, Value, register
from tinypeft.ops.constraints import constant, per_tensor, require_int8


@register
class Mean(Op):
    """output = requantize(sum over the attribute `axes`); these are adjoining, with only 1s in front of them."""

    name = "MEAN"
    operands = ("input",)
    source = "tp_mean.c"

    def from_tflite(
        self, options: Any, inputs: list[Tensor | None], outputs: list[Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        require_int8(inputs[0], *outputs)
        x = inputs[0]
        assert x is not None
        rank = len(x.shape)
        axes = tuple(sorted({axis % rank for axis in constant(inputs[1], "axes of a mean")}))
        adjoining = bool(axes) and axes == tuple(range(axes[0], axes[-1] + 1))
        if not adjoining or 0 in axes or math.prod(x.shape[: axes[0]]) != 1:
            raise ModelError(
                f"a mean over the axes {axes} of shape {x.shape} is not supported", "average over height and width"
            )
        return {"input": x}, {"axes": axes, "keep_dims": bool(options.keepDims)}

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        axes, keep = op.attributes["axes"], op.attributes["keep_dims"]
        shape = op.inputs["input"].shape
        return {"output": tuple(1 if i in axes else n for i, n in enumerate(shape) if keep or i not in axes)}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        p = _parameters(op)
        x = values["input"].reshape(p["count"], p["channels"]).astype(np.int64)
        sums = x.sum(axis=0) + p["input_offset"] * p["count"]
        result = requantize_double(sums, p["multiplier"], p["shift"]) + p["output_offset"]
        return {"output": saturate(result).reshape(op.output.shape)}

    def vjp(self, op: Operation, d_output: Tensor, builder: Builder) -> dict[str, Tensor]:
        x = op.inputs["input"]
        if not builder.needs(x):
            return {}
        d_mean = builder.through_output(op, d_output) if _can_saturate(op) else d_output
        d_input = builder.gradient(x)
        attributes = {"axes": op.attributes["axes"], "shape": x.shape}
        builder.emit("MEAN_BACKWARD", op, {"d_output": d_mean}, {"d_input": d_input}, attributes)
        return {"input": d_input}

    def call(self, op: Operation) -> KernelCall:
        arguments: list[Any] = [op.inputs["input"], op.outputs["output"]]
        return KernelCall("tp_mean_s8", "tp_mean_params", {**_parameters(op)}, arguments)


@register
class MeanBackward(Op):
    """d_input = d_output / count at every position."""

    name = "MEAN_BACKWARD"
    operands = ("d_output",)
    results = ("d_input",)
    source = "tp_mean.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"d_input": tuple(op.attributes["shape"])}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        p = _backward_fields(op)
        d_output: BlockFloat = values["d_output"]
        shift = narrow_shift(d_output.peak * p["multiplier"])
        scaled = round_half_up_shift(d_output.mantissa.astype(np.int64) * p["multiplier"], shift).astype(np.int16)
        spread = np.broadcast_to(scaled.reshape(1, -1), (p["count"], p["channels"]))
        mantissa = spread.reshape(op.attributes["shape"]).copy()
        return {"d_input": BlockFloat(mantissa, d_output.exponent + p["exponent"] + shift)}

    def call(self, op: Operation) -> KernelCall:
        arguments: list[Any] = [op.inputs["d_output"], op.outputs["d_input"]]
        return KernelCall("tp_mean_backward_s16", "tp_mean_backward_params", {**_backward_fields(op)}, arguments)

    def macs(self, op: Operation) -> int:
        return op.inputs["d_output"].size


def _extents(shape: tuple[int, ...], axes: tuple[int, ...]) -> dict[str, int]:
    return {"count": math.prod(shape[i] for i in axes), "channels": math.prod(shape[axes[-1] + 1 :])}


def _parameters(op: Operation) -> dict[str, int]:
    x = op.inputs["input"]
    (scale_in, zero_in), (scale_out, zero_out) = per_tensor(x), per_tensor(op.output)
    extents = _extents(x.shape, op.attributes["axes"])
    multiplier, shift = quantize_multiplier(scale_in / scale_out)
    # LiteRT folds the division by count into the multiplier, keeping its leading bits.
    extra = min(extents["count"].bit_length() - 1, 32, 31 + shift)
    return {
        **extents,
        "input_offset": -zero_in,
        "output_offset": zero_out,
        "multiplier": (multiplier << extra) // extents["count"],
        "shift": shift - extra,
    }


def _can_saturate(op: Operation) -> bool:
    """Whether an extreme input, which is its own mean, leaves the output's range."""
    (scale_in, zero_in), (scale_out, zero_out) = per_tensor(op.inputs["input"]), per_tensor(op.output)
    low, high = ((q - zero_in) * scale_in / scale_out + zero_out for q in (INT8_MIN, INT8_MAX))
    return low < INT8_MIN - 0.5 or high > INT8_MAX + 0.5


def _backward_fields(op: Operation) -> dict[str, int]:
    extents = _extents(tuple(op.attributes["shape"]), op.attributes["axes"])
    multipliers, exponent = channel_fold(np.array([1.0 / extents["count"]]))
    return {**extents, "multiplier": int(multipliers[0]), "exponent": exponent}
