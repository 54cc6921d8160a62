"""Elementwise functions of one int8 tensor: a table of all 256 results, and a table of slopes for their gradient.

Defines LOOKUP_BACKWARD, the gradient of them all; the functions are in `activation_functions.py` and `elementary.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinypeft.arithmetic import channel_fold, quantize_multiplier, requantize_double
from tinypeft.ir import Operation, Tensor
from tinypeft.ops.activation import INT8_MAX, INT8_MIN, output_range, saturate
from tinypeft.ops.base import BlockFloat, Bounds, Builder, CArray, KernelCall, Op, Value, register
from tinypeft.ops.channels import own_channels
from tinypeft.ops.constraints import per_tensor, require_int8
from tinypeft.ops.mantissas import narrowed
from tinypeft.ops.quantize import FAR_OUTSIDE

#: Every int8, in the order of the tables.
LEVELS = np.arange(-128, 128)
#: Largest shift to the left of a centred int8, up to 255, inside int32.
MAX_SHIFT = 22


class Lookup(Op):
    """What the functions share: `table` and `slope` define one."""

    operands = ("input",)
    source = "tp_lookup.c"

    def from_tflite(
        self, options: Any, inputs: list[Tensor | None], outputs: list[Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        require_int8(inputs[0], *outputs)
        assert inputs[0] is not None
        return {"input": inputs[0]}, self.attributes(options)

    def attributes(self, options: Any) -> dict[str, Any]:
        """The attributes that the TFLite options give."""
        return {}

    def table(self, op: Operation) -> np.ndarray:
        """The int8 result (256,) for each of LEVELS, as LiteRT's reference kernel computes it."""
        raise NotImplementedError

    def slope(self, op: Operation, x: np.ndarray) -> np.ndarray:
        """The derivative at the real inputs `x`, float64; where the result is clamped it may be inf."""
        raise NotImplementedError

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"output": op.inputs["input"].shape}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        return {"output": self.table(op)[values["input"].astype(np.int16) - LEVELS[0]]}

    def vjp(self, op: Operation, d_output: Tensor, builder: Builder) -> dict[str, Tensor]:
        x = op.inputs["input"]
        if not builder.needs(x):
            return {}
        d_input = builder.gradient(x)
        inputs = {"d_output": d_output, "input": x}
        builder.emit("LOOKUP_BACKWARD", op, inputs, {"d_input": d_input}, {"slopes": self.slopes(op)})
        return {"input": d_input}

    def channel_sources(self, op: Operation) -> dict[str, np.ndarray] | None:
        return own_channels(op)

    def channel_bounds(self, op: Operation, bounds: dict[str, Bounds]) -> Bounds | None:
        if "input" not in bounds:
            return None
        within = (bounds["input"].low[:, None] <= LEVELS) & (LEVELS <= bounds["input"].high[:, None])
        table = self.table(op).astype(np.int64)
        return Bounds(np.where(within, table, INT8_MAX).min(1), np.where(within, table, INT8_MIN).max(1))

    def slopes(self, op: Operation) -> np.ndarray:
        """The derivative at each of LEVELS, float64; 0 where the result is clamped."""
        scale, zero_point = per_tensor(op.inputs["input"])
        low, high = output_range(op)
        table = self.table(op)
        with np.errstate(all="ignore"):
            slope = self.slope(op, scale * (LEVELS - zero_point).astype(np.float64))
        return np.where((table > low) & (table < high), slope, 0.0)

    def in_place(self, op: Operation) -> dict[str, tuple[str, ...]]:
        return {"output": ("input",)}

    def call(self, op: Operation) -> KernelCall:
        fields = {"size": op.output.size, "table": CArray("int8_t", self.table(op))}
        return KernelCall("tp_lookup_s8", "tp_lookup_params", fields, [op.inputs["input"], op.output])


@register
class LookupBackward(Op):
    """d_input = d_output * the attribute `slopes` (256,) at the stored input."""

    name = "LOOKUP_BACKWARD"
    operands = ("d_output", "input")
    results = ("d_input",)
    source = "tp_lookup.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"d_input": op.inputs["input"].shape}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        d_output: BlockFloat = values["d_output"]
        slopes, largest, exponent = _fold(op)
        at_input = slopes[values["input"].astype(np.int16) - LEVELS[0]].astype(np.int64)
        products = d_output.mantissa.reshape(at_input.shape) * at_input
        return {"d_input": narrowed(op.output, products, d_output.exponent + exponent, d_output.peak * largest)}

    def in_place(self, op: Operation) -> dict[str, tuple[str, ...]]:
        return {"d_input": ("d_output",)}

    def call(self, op: Operation) -> KernelCall:
        slopes, largest, exponent = _fold(op)
        fields: dict[str, Any] = {
            "size": op.output.size, "slopes": CArray("int16_t", slopes), "largest": largest, "exponent": exponent
        }  # fmt: skip
        arguments: list[Any] = [op.inputs["d_output"], op.inputs["input"], op.output]
        return KernelCall("tp_lookup_backward_s16", "tp_lookup_backward_params", fields, arguments)

    def macs(self, op: Operation) -> int:
        return op.output.size


class FloatArithmetic:
    """Options of a function that the file computes in float32, between a DEQUANTIZE and a QUANTIZE."""


class BetweenFloats(Lookup):
    """A function that the converter leaves in float32: the attribute `float` says that the three are one table."""

    def attributes(self, options: Any) -> dict[str, Any]:
        return {"float": isinstance(options, FloatArithmetic)}

    def function(self, op: Operation, x: np.ndarray) -> np.ndarray:
        """The float32 results."""
        raise NotImplementedError

    def int8_table(self, op: Operation) -> np.ndarray:
        """The table of LiteRT's int8 kernel."""
        raise NotImplementedError

    def table(self, op: Operation) -> np.ndarray:
        if not op.attributes["float"]:
            return self.int8_table(op)
        (scale_in, zero_in), (scale_out, zero_out) = per_tensor(op.inputs["input"]), per_tensor(op.output)
        with np.errstate(over="ignore"):
            y = self.function(op, np.float32(scale_in) * (LEVELS - zero_in).astype(np.float32))
            steps = np.clip((y / np.float32(scale_out)).astype(np.float64), -FAR_OUTSIDE, FAR_OUTSIDE)
        return saturate(round_half_away(steps) + zero_out)


def round_half_away(x: np.ndarray) -> np.ndarray:
    """Float64 rounded to integers, half away from zero."""
    return np.sign(x) * np.floor(np.abs(x) + 0.5)


def float_table(op: Operation, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The table of a float32 `function`: dequantised, computed, rounded half away from zero, saturated."""
    return saturate(_float_results(op, function) + per_tensor(op.output)[1])


def check_float_table(op: Operation, function: Callable[[np.ndarray], np.ndarray]) -> str | None:
    """None, or a sentence that some result lies beyond int32 in steps of the output, where LiteRT's is undefined."""
    if np.abs(_float_results(op, function)).max() < 2.0**31:
        return None
    return too_small(op)


def integer_table(op: Operation, real: float) -> np.ndarray:
    """LEVELS without the zero point, times `real`, rounded twice: int64, neither offset nor saturated."""
    return requantize_double(LEVELS - per_tensor(op.inputs["input"])[1], *quantize_multiplier(real))


def scale_ratio(op: Operation, factor: float = 1.0) -> float:
    """input scale * factor / output scale, in float32."""
    scale_in, scale_out = (np.float32(per_tensor(t)[0]) for t in (op.inputs["input"], op.output))
    return float(scale_in * np.float32(factor) / scale_out)


def check_ratio(op: Operation, real: float) -> str | None:
    """None, or a sentence that `integer_table` of `real` would leave int32."""
    return too_small(op) if quantize_multiplier(real)[1] > MAX_SHIFT else None


def too_small(op: Operation) -> str:
    """The sentence that the output's scale does not suit the input's."""
    (scale_in, _), (scale_out, _) = per_tensor(op.inputs["input"]), per_tensor(op.output)
    return f"{op.output.name} has scale {scale_out:g}, too small for an input of scale {scale_in:g}"


def _float_results(op: Operation, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The results in steps of the output, rounded, float64."""
    (scale_in, zero_in), (scale_out, _) = per_tensor(op.inputs["input"]), per_tensor(op.output)
    with np.errstate(all="ignore"):
        y = function(np.float32(scale_in) * (LEVELS - zero_in).astype(np.float32))
        steps = (y * (np.float32(1.0) / np.float32(scale_out))).astype(np.float64)
    return round_half_away(steps)


def _fold(op: Operation) -> tuple[np.ndarray, int, int]:
    """(int16 mantissas, the largest magnitude, exponent) of the slopes."""
    slopes = op.attributes["slopes"]
    magnitudes, exponent = channel_fold(np.abs(slopes))
    return np.where(slopes < 0, -magnitudes, magnitudes).astype(np.int16), int(magnitudes.max()), exponent
