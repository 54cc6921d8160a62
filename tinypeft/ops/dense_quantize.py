"""DENSE_QUANTIZE: masters of a retrained layer to int8 weights with scales of their own; DENSE_RESTORE: back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinypeft import arithmetic
from tinypeft.arithmetic import F32
from tinypeft.ir import Operation, Tensor
from tinypeft.ops.base import CArray, KernelCall, Op, Value, register
from tinypeft.ops.update_rows import CLEAN, WRITTEN

#: largest |bias| in steps of the accumulator
BIAS_LIMIT = 1 << 30
#: A channel's scale is the base's times 2**(growth / 4), as float32: _QUARTERS[growth % 4] * 2**(growth // 4).
_QUARTERS = np.array([1.0, 1.1892071, 1.4142135, 1.6817929], np.float32)
GROWTH_MAX = 127


@register
class DenseQuantize(Op):
    """Quantise a layer per output channel, never finer than the base layer, so that a fresh copy equals it.

    The scale of a channel grows in steps of 2**(1/4) where its weights need that, and stays: `growth` int8 (Cout,)
    keeps how often, until masters are written from outside. So a weight whose master has not changed is what it was,
    and the kernel leaves out channels that `row_changed` (see UPDATE_ROWS) says are clean. `logit_range` (2,), of a
    classifier, holds the smallest and largest logit seen, int32 in steps of 2**logit_exponent: the int8 output's scale
    grows by powers of two, `output_shift`, until it holds them. The loss reads `logit_scale`, not that. What the
    scales alone decide, the kernel computes where they change.
    """

    name = "DENSE_QUANTIZE"
    operands = ("master_filter", "master_bias", "row_changed", "growth")
    optional = ("logit_range",)
    results = (
        "filter",
        "bias",
        "multiplier",
        "shift",
        "output_shift",
        "logit_scale",
        "fold_multiplier",
        "fold_exponent",
        "row_changed",
        "growth",
    )
    dispensable = ("logit_scale", "fold_multiplier", "fold_exponent")
    source = "tp_dense_quantize.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        shapes = dict.fromkeys(self.results, op.inputs["master_bias"].shape)
        shapes |= {"filter": op.inputs["master_filter"].shape, "fold_exponent": (1,), "output_shift": (1,)}
        return _present(op, shapes, "output_shift" if "logit_range" in op.inputs else "")

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        weights = arithmetic.limit_float(values["master_filter"])
        bias = arithmetic.limit_float(values["master_bias"])
        rows, attributes = weights.reshape(len(weights), -1), op.attributes
        input_scale, output_scale = F32(attributes["input_scale"]), F32(attributes["output_scale"])
        range_shift = self._range_shift(op, values["logit_range"]) if "logit_range" in op.inputs else 0
        growth, scale, filters = self._grown(rows, values, attributes["filter_scale"])
        unit = input_scale * scale
        range_scale = output_scale * arithmetic.exp2i(range_shift)
        multiplier, shift = attributes["base_multiplier"].copy(), attributes["base_shift"].astype(int) - range_shift
        for c in np.flatnonzero(growth):
            mantissa, exponent = math.frexp(float(unit[c] / range_scale))
            multiplier[c], shift[c] = int(mantissa * (1 << 31)), exponent
        results = {
            "filter": filters.reshape(weights.shape),
            "bias": arithmetic.round_to_int(bias / unit),
            "multiplier": multiplier.astype(np.int32),
            "shift": np.clip(shift, -31, 30).astype(np.int8),
            "logit_scale": unit,
            "row_changed": np.full(len(rows), CLEAN, np.int8),
            "growth": growth,
            **_derived(scale),
        }
        return results | ({"output_shift": np.array([range_shift], np.int8)} if "logit_range" in op.inputs else {})

    @staticmethod
    def _grown(
        rows: np.ndarray, values: dict[str, Value], base_scale: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(growth, scale, filter): of each row the least growth, from what it has on, that int8 holds it with.

        A row that was WRITTEN begins anew.
        """
        growth = np.where(values["row_changed"] == WRITTEN, 0, values["growth"]).astype(np.int64)
        while True:
            scale = grown_scale(base_scale, growth)
            steps = rows * (F32(1.0) / scale)[:, None]
            outside = ~((steps >= F32(-128.5)) & (steps < F32(127.5))).all(1)
            if not (outside & (growth < GROWTH_MAX)).any():
                filters = np.clip(np.rint(np.clip(steps, F32(-128.0), F32(127.0))), -128, 127)
                return growth.astype(np.int8), scale, filters.astype(np.int8)
            growth += outside & (growth < GROWTH_MAX)

    @staticmethod
    def _range_shift(op: Operation, logit_range: np.ndarray) -> int:
        low, high = _output_limits(op)
        smallest, largest = logit_range.astype(np.float32) * arithmetic.exp2i(op.attributes["logit_exponent"])
        for shift in range(8):
            factor = arithmetic.exp2i(shift)
            if not (smallest < low * factor or largest > high * factor):
                return shift
        return 8

    def call(self, op: Operation) -> KernelCall:
        arguments = [op.inputs.get(name) for name in ("master_filter", "master_bias", "logit_range")]
        arguments += [op.outputs.get(name) for name in self.results]
        fields = quantize_fields(op, op.inputs["master_filter"])
        return KernelCall("tp_dense_quantize_f32", "tp_dense_quantize_params", fields, arguments)


@register
class DenseRestore(Op):
    """The masters that a retrained layer's integers stand for, and what the backward pass derives from them."""

    name = "DENSE_RESTORE"
    operands = ("filter", "bias", "growth")
    optional = ("output_shift",)
    results = ("master_filter", "master_bias", "logit_range", "fold_multiplier", "fold_exponent")
    dispensable = ("fold_multiplier", "fold_exponent")
    source = "tp_dense_quantize.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        channels = op.inputs["bias"].shape
        shapes: dict[str, tuple[int, ...]] = {"master_filter": op.inputs["filter"].shape, "master_bias": channels}
        shapes |= {"fold_multiplier": channels, "fold_exponent": (1,), "logit_range": (2,)}
        return _present(op, shapes, "logit_range" if "output_shift" in op.inputs else "")

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        filters, scale = values["filter"], grown_scale(op.attributes["filter_scale"], values["growth"])
        rows = filters.reshape(len(filters), -1).astype(np.float32) * scale[:, None]
        results = {
            "master_filter": rows.reshape(filters.shape),
            "master_bias": values["bias"].astype(np.float32) * (F32(op.attributes["input_scale"]) * scale),
            **_derived(scale),
        }
        if "output_shift" in op.inputs:
            shift = int(values["output_shift"][0])
            reach = arithmetic.exp2i(shift) if shift > 0 else F32(0.0)
            low, high = _output_limits(op)
            results["logit_range"] = _observed(op, np.array([low * reach, high * reach], np.float32))
        return results

    def call(self, op: Operation) -> KernelCall:
        arguments = [op.inputs.get(name) for name in ("filter", "bias", "growth", "output_shift")]
        arguments += [op.outputs.get(name) for name in self.results]
        fields = quantize_fields(op, op.inputs["filter"])
        return KernelCall("tp_dense_restore_f32", "tp_dense_quantize_params", fields, arguments)


def grown_scale(base_scale: np.ndarray, growth: np.ndarray) -> np.ndarray:
    """The scales of channels, float32, that have grown so often."""
    return base_scale * np.ldexp(_QUARTERS[growth & 3], growth >> 2)


def _present(op: Operation, shapes: dict[str, tuple[int, ...]], classifiers: str) -> dict[str, tuple[int, ...]]:
    """Without the results that are dispensed with, or that only a classifier has; it names `classifiers`."""
    absent = {"output_shift", "logit_range"} - {classifiers} | set(op.op.dispensable) - set(op.outputs)
    return {name: shape for name, shape in shapes.items() if name not in absent}


def _output_limits(op: Operation) -> tuple[np.float32, np.float32]:
    """The smallest and largest logit that the base layer's int8 output holds."""
    scale, zero_point = F32(op.attributes["output_scale"]), op.attributes["output_zero_point"]
    return F32(-128 - zero_point) * scale, F32(127 - zero_point) * scale


def _observed(op: Operation, limits: np.ndarray) -> np.ndarray:
    """The range within `limits` that, observed, asks for the same scale: rounded towards zero."""
    steps = limits * arithmetic.exp2i(-op.attributes["logit_exponent"])
    return np.trunc(arithmetic.limit_float(steps, F32(2.0**30))).astype(np.int32)


def _derived(scale: np.ndarray) -> dict[str, Value]:
    exponent = arithmetic.float_exponent(scale.max()) - 14
    fold = np.minimum(arithmetic.round_to_int(scale * arithmetic.exp2i(-exponent)), 32767)
    return {
        "fold_multiplier": fold.astype(np.int16),
        "fold_exponent": np.array([exponent], np.int32),
    }


def quantize_fields(op: Operation, filters: Tensor) -> dict[str, Any]:
    """The fields of tp_dense_quantize_params."""
    attributes = op.attributes
    return {
        "row_size": filters.size // filters.shape[0],
        "output_c": filters.shape[0],
        "input_scale": F32(attributes["input_scale"]),
        "output_scale": F32(attributes["output_scale"]),
        "output_zero_point": attributes["output_zero_point"],
        "logit_exponent": attributes["logit_exponent"],
        "filter_scale": CArray("float", attributes["filter_scale"]),
        "base_multiplier": CArray("int32_t", attributes["base_multiplier"]),
        "base_shift": CArray("int8_t", attributes["base_shift"]),
    }
