"""MEAN over any axes: int8, with its own output scale; and its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinypeft.arithmetic import (
    channel_fold,
    quantize_multiplier,
    requantize_double,
)
from tinypeft.ir import Operation, Tensor
from tinypeft.ops.activation import INT8_MAX, INT8_MIN, saturate
from tinypeft.ops.base import BlockFloat, Bounds, Builder, KernelCall, Op, Value, register
from tinypeft.ops.channels import monotone_bounds, own_channels
from tinypeft.ops.constraints import per_tensor
from tinypeft.ops.mantissas import narrowed
from tinypeft.ops.reduction import kept_dims, loops_of, reduced_shape, reduction_from_tflite


@register
class Mean(Op):
    """output = requantize(sum over the attribute `axes`), the division by their count being in the multiplier."""

    name = "MEAN"
    operands = ("input",)
    source = "tp_mean.c"
    limits = "The axes must be constant."

    def from_tflite(
        self, options: Any, inputs: list[Tensor | None], outputs: list[Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return reduction_from_tflite(options, inputs, outputs)

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"output": reduced_shape(op)}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        p = _requantization(op)
        sums = values["input"].astype(np.int64).sum(axis=op.attributes["axes"])
        sums = sums + p["input_offset"] * loops_of(op).count
        result = requantize_double(sums, p["multiplier"], p["shift"]) + p["output_offset"]
        return {"output": saturate(result).reshape(op.output.shape)}

    def channel_sources(self, op: Operation) -> dict[str, np.ndarray] | None:
        return None if len(op.inputs["input"].shape) - 1 in op.attributes["axes"] else own_channels(op)

    def channel_bounds(self, op: Operation, bounds: dict[str, Bounds]) -> Bounds | None:
        return monotone_bounds(op, bounds)

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
        function, params, extents = _form(op, "s8")
        arguments: list[Any] = [op.inputs["input"], op.outputs["output"]]
        return KernelCall(function, params, {**extents, **_requantization(op)}, arguments)


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
        multiplier, exponent = _reciprocal(op)
        d_output: BlockFloat = values["d_output"]
        products = d_output.mantissa.astype(np.int64) * multiplier
        shape = tuple(op.attributes["shape"])
        spread = np.broadcast_to(products.reshape(kept_dims(shape, op.attributes["axes"])), shape)
        return {"d_input": narrowed(op.output, spread, d_output.exponent + exponent, d_output.peak * multiplier)}

    def call(self, op: Operation) -> KernelCall:
        function, params, extents = _form(op, "backward_s16")
        multiplier, exponent = _reciprocal(op)
        arguments: list[Any] = [op.inputs["d_output"], op.outputs["d_input"]]
        return KernelCall(function, params, {**extents, "multiplier": multiplier, "exponent": exponent}, arguments)

    def macs(self, op: Operation) -> int:
        return op.inputs["d_output"].size


def _form(op: Operation, suffix: str) -> tuple[str, str, dict[str, Any]]:
    """(function, parameters, their extents): over rows of channels where the axes allow that, else over any axes."""
    loops = loops_of(op)
    stem = "tp_mean_" if loops.over_rows else "tp_mean_axes_"
    params = stem + suffix.removesuffix("s8").removesuffix("s16") + "params"
    extents = {"count": loops.count, "channels": loops.results} if loops.over_rows else loops.fields()
    return stem + suffix, params, extents


def _requantization(op: Operation) -> dict[str, int]:
    (scale_in, zero_in), (scale_out, zero_out) = per_tensor(op.inputs["input"]), per_tensor(op.output)
    count = loops_of(op).count
    multiplier, shift = quantize_multiplier(scale_in / scale_out)
    # LiteRT folds the division by count into the multiplier, keeping its leading bits.
    extra = min(count.bit_length() - 1, 32, 31 + shift)
    return {
        "input_offset": -zero_in,
        "output_offset": zero_out,
        "multiplier": (multiplier << extra) // count,
        "shift": shift - extra,
    }


def _can_saturate(op: Operation) -> bool:
    """Whether an extreme input, which is its own mean, leaves the output's range."""
    (scale_in, zero_in), (scale_out, zero_out) = per_tensor(op.inputs["input"]), per_tensor(op.output)
    low, high = ((q - zero_in) * scale_in / scale_out + zero_out for q in (INT8_MIN, INT8_MAX))
    return low < INT8_MIN - 0.5 or high > INT8_MAX + 0.5


def _reciprocal(op: Operation) -> tuple[int, int]:
    """(multiplier, exponent) of 1 / count."""
    multipliers, exponent = channel_fold(np.array([1.0 / loops_of(op).count]))
    return int(multipliers[0]), exponent
