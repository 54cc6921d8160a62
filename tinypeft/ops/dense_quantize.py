"""DENSE_QUANTIZE: masters of a retrained classifier to int8 weights with scales of their own; DENSE_RESTORE: back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinypeft import arithmetic
from tinypeft.arithmetic import F32
from tinypeft.ir import Operation, Tensor
from tinypeft.ops.base import CArray, KernelCall, Op, Value, register

#: largest |bias| in steps of the accumulator
BIAS_LIMIT = 1 << 30
#: A channel whose scale exceeds the base layer's by no more than rounding keeps that.
_SAME_SCALE = F32(1.000001)


@register
class DenseQuantize(Op):
    """Quantise a dense layer per output channel, never finer than the base layer, so that a fresh copy equals it.

    `logit_range` (2,) holds the smallest and largest logit seen, int32 in steps of 2**logit_exponent: the int8 output's
    scale grows by powers of two until it holds them. The loss reads `logit_scale`, not that scale.
    """

    name = "DENSE_QUANTIZE"
    operands = ("master_filter", "master_bias", "logit_range")
    results = (
        "filter",
        "bias",
        "multiplier",
        "shift",
        "output_shift",
        "logit_scale",
        "fold_multiplier",
        "fold_exponent",
        "l1",
    )
    source = "tp_dense_quantize.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        channels = op.inputs["master_bias"].shape
        per_channel = ("bias", "multiplier", "shift", "logit_scale", "fold_multiplier")
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(self.results, (1,))
        return shapes | dict.fromkeys(per_channel, channels) | {"filter": op.inputs["master_filter"].shape}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        weights = arithmetic.limit_float(values["master_filter"])
        bias = arithmetic.limit_float(values["master_bias"])
        attributes = op.attributes
        input_scale, output_scale = F32(attributes["input_scale"]), F32(attributes["output_scale"])
        range_shift = self._range_shift(op, values["logit_range"])
        base_scale = attributes["filter_scale"]
        needed = np.abs(weights).max(1) / F32(127.0)
        grown = needed > base_scale * _SAME_SCALE
        scale = np.where(grown, needed, base_scale)
        filters = np.clip(arithmetic.round_to_int(weights / scale[:, None]), -127, 127).astype(np.int8)
        unit = input_scale * scale
        range_scale = output_scale * arithmetic.exp2i(range_shift)
        multiplier, shift = attributes["base_multiplier"].copy(), attributes["base_shift"] - range_shift
        for c in np.flatnonzero(grown):
            mantissa, exponent = math.frexp(float(unit[c] / range_scale))
            multiplier[c], shift[c] = int(mantissa * (1 << 31)), exponent
        return {
            "filter": filters,
            "bias": arithmetic.round_to_int(bias / unit),
            "multiplier": multiplier.astype(np.int32),
            "shift": np.clip(shift, -31, 30).astype(np.int32),
            "output_shift": np.array([range_shift], np.int8),
            "logit_scale": unit,
            **_derived(filters, unit / input_scale),
        }

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
        arguments = [*op.inputs.values(), *op.outputs.values()]
        fields = _fields(op, op.inputs["master_filter"])
        return KernelCall("tp_dense_quantize_f32", "tp_dense_quantize_params", fields, arguments)


@register
class DenseRestore(Op):
    """The masters that a retrained layer's integers stand for, and what the backward pass derives from them."""

    name = "DENSE_RESTORE"
    operands = ("filter", "bias", "output_shift", "logit_scale")
    results = ("master_filter", "master_bias", "logit_range", "fold_multiplier", "fold_exponent", "l1")
    source = "tp_dense_quantize.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        channels = op.inputs["bias"].shape
        shapes: dict[str, tuple[int, ...]] = {"master_filter": op.inputs["filter"].shape, "master_bias": channels}
        return shapes | {"logit_range": (2,), "fold_multiplier": channels, "fold_exponent": (1,), "l1": (1,)}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        filters, unit = values["filter"], values["logit_scale"]
        scale = unit / F32(op.attributes["input_scale"])
        shift = int(values["output_shift"][0])
        reach = arithmetic.exp2i(shift) if shift > 0 else F32(0.0)
        low, high = _output_limits(op)
        return {
            "master_filter": filters.astype(np.float32) * scale[:, None],
            "master_bias": values["bias"].astype(np.float32) * unit,
            "logit_range": _observed(op, np.array([low * reach, high * reach], np.float32)),
            **_derived(filters, scale),
        }

    def call(self, op: Operation) -> KernelCall:
        arguments = [*op.inputs.values(), *op.outputs.values()]
        fields = _fields(op, op.inputs["filter"])
        return KernelCall("tp_dense_restore_f32", "tp_dense_quantize_params", fields, arguments)


def _output_limits(op: Operation) -> tuple[np.float32, np.float32]:
    """The smallest and largest logit that the base layer's int8 output holds."""
    scale, zero_point = F32(op.attributes["output_scale"]), op.attributes["output_zero_point"]
    return F32(-128 - zero_point) * scale, F32(127 - zero_point) * scale


def _observed(op: Operation, limits: np.ndarray) -> np.ndarray:
    """The range within `limits` that, observed, asks for the same scale: rounded towards zero."""
    steps = limits * arithmetic.exp2i(-op.attributes["logit_exponent"])
    return np.trunc(arithmetic.limit_float(steps, F32(2.0**30))).astype(np.int32)


def _derived(filters: np.ndarray, scale: np.ndarray) -> dict[str, Value]:
    exponent = arithmetic.float_exponent(scale.max()) - 14
    fold = np.minimum(arithmetic.round_to_int(scale * arithmetic.exp2i(-exponent)), 32767)
    return {
        "fold_multiplier": fold.astype(np.int16),
        "fold_exponent": np.array([exponent], np.int32),
        "l1": np.array([np.abs(filters.astype(np.int64)).sum(0).max()], np.int32),
    }


def _fields(op: Operation, filters: Tensor) -> dict[str, Any]:
    attributes = op.attributes
    return {
        "input_c": filters.shape[1],
        "output_c": filters.shape[0],
        "input_scale": F32(attributes["input_scale"]),
        "output_scale": F32(attributes["output_scale"]),
        "output_zero_point": attributes["output_zero_point"],
        "logit_exponent": attributes["logit_exponent"],
        "filter_scale": CArray("float", attributes["filter_scale"]),
        "base_multiplier": CArray("int32_t", attributes["base_multiplier"]),
        "base_shift": CArray("int32_t", attributes["base_shift"]),
    }
