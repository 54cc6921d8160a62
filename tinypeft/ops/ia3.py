"""IA3_QUANTIZE: trained factors of output channels to a layer's multipliers; IA3_RESTORE: back; their gradient."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinypeft import arithmetic
from tinypeft.arithmetic import F32
from tinypeft.ir import Operation
from tinypeft.ops.base import CArray, KernelCall, Op, RowFunction, Value, register
from tinypeft.ops.parameter_gradient import ParameterGradient
from tinypeft.ops.weighted import input_range

#: Factors lie within 2**-FACTOR_BITS and 2**FACTOR_BITS: an int8 output tells no smaller ones apart from 0, and larger
#: ones saturate it.
FACTOR_BITS = 6
#: What the backward pass reads: the factors, one over them, and the filter scales times them.
_DERIVED = ("factor", "inverse", "fold_multiplier", "fold_exponent")


def factor_limits(base_shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(smallest, largest) factor of each channel, float32 powers of two: shifts stay within [-31, 30]."""
    low = [arithmetic.exp2i(max(-FACTOR_BITS, -31 - int(shift))) for shift in base_shift]
    high = [arithmetic.exp2i(min(FACTOR_BITS, 30 - int(shift))) for shift in base_shift]
    return np.array(low, np.float32), np.array(high, np.float32)


def limited_factors(master: np.ndarray, base_shift: np.ndarray) -> np.ndarray:
    """Masters as they are quantised, float32."""
    low, high = factor_limits(base_shift)
    return np.clip(arithmetic.limit_float(master), low, high)


@register
class Ia3Quantize(Op):
    """multiplier * 2**shift = base multiplier * factor * 2**base shift, rounded to the 31 bits of a multiplier.

    A factor of 1 leaves the base's. Attributes: base_multiplier int32, base_shift int8, filter_scale float32, (Cout,).
    """

    name = "IA3_QUANTIZE"
    operands = ("master",)
    results = ("multiplier", "shift", *_DERIVED)
    source = "tp_ia3.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return dict.fromkeys(self.results, op.inputs["master"].shape) | {"fold_exponent": (1,)}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        base, base_shift = op.attributes["base_multiplier"].astype(np.int64), op.attributes["base_shift"]
        factor = limited_factors(values["master"], base_shift)
        exponent = np.array([arithmetic.float_exponent(f) for f in factor])
        mantissa = np.ldexp(factor.astype(np.float64), 23 - exponent).astype(np.int64)
        product = base * mantissa
        more = (product >= (1 << 54) - (1 << 22)).astype(np.int64)  # rounded to 23 bits fewer it would have 32
        multiplier = arithmetic.round_half_up_shift(product, 23 + more)
        return {
            "multiplier": multiplier.astype(np.int32),
            "shift": np.where(base > 0, base_shift + exponent + more, base_shift).astype(np.int8),
            **_derived(op, factor),
        }

    def call(self, op: Operation) -> KernelCall:
        arguments = [op.inputs["master"], *op.outputs.values()]
        return KernelCall("tp_ia3_quantize_f32", "tp_ia3_params", _fields(op), arguments)


@register
class Ia3Restore(Op):
    """The factors that multipliers stand for, exactly those that they were made from."""

    name = "IA3_RESTORE"
    operands = ("multiplier", "shift")
    results = ("master", *_DERIVED)
    source = "tp_ia3.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return dict.fromkeys(self.results, op.inputs["multiplier"].shape) | {"fold_exponent": (1,)}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        base, base_shift = op.attributes["base_multiplier"].astype(np.int64), op.attributes["base_shift"]
        multiplier = values["multiplier"].astype(np.int64)
        exponent = np.clip(values["shift"], -31, 30) - base_shift - (multiplier < base)
        divisor = np.maximum(base, 1)
        mantissa = ((multiplier << (23 + (multiplier < base))) + divisor // 2) // divisor
        scale = np.array([arithmetic.exp2i(int(e) - 23) for e in exponent], np.float32)
        factor = np.where(base > 0, mantissa.astype(np.float32) * scale, F32(1.0))
        factor = limited_factors(factor, base_shift)
        return {"master": factor, **_derived(op, factor)}

    def call(self, op: Operation) -> KernelCall:
        arguments = [*op.inputs.values(), *op.outputs.values()]
        return KernelCall("tp_ia3_restore_f32", "tp_ia3_params", _fields(op), arguments)


def _derived(op: Operation, factor: np.ndarray) -> dict[str, Value]:
    scale = op.attributes["filter_scale"] * factor
    exponent = arithmetic.float_exponent(scale.max()) - 14
    fold = np.minimum(arithmetic.round_to_int(scale * arithmetic.exp2i(-exponent)), arithmetic.BFP16_MAX)
    return {
        "factor": factor,
        "inverse": F32(1.0) / factor,
        "fold_multiplier": fold.astype(np.int16),
        "fold_exponent": np.array([exponent], np.int32),
    }


def _fields(op: Operation) -> dict[str, Any]:
    return {
        "channels": op.output.size,
        "base_multiplier": CArray("int32_t", op.attributes["base_multiplier"], "base_multiplier"),
        "base_shift": CArray("int8_t", op.attributes["base_shift"], "base_shift"),
        "filter_scale": CArray("float", op.attributes["filter_scale"], "filter_scale"),
    }


@register
class Ia3Backward(ParameterGradient):
    """The gradient of factors (Cout,), times the factor: d_output (...,Cout) against the int8 output - zero point."""

    name = "IA3_BACKWARD"
    operands = ("d_output", "source")
    source = "tp_ia3.c"

    def reach(self, op: Operation) -> int:
        return op.inputs["source"].size // op.inputs["source"].shape[-1] * input_range(op.inputs["source"])

    def total(self, op: Operation, values: dict[str, Value]) -> np.ndarray:
        mantissa = values["d_output"].mantissa.astype(np.int64).reshape(-1, op.inputs["source"].shape[-1])
        output = values["source"].astype(np.int64).reshape(mantissa.shape) - op.inputs["source"].zero_point
        return (mantissa * output).sum(0)

    def row_function(self, op: Operation) -> RowFunction:
        source = op.inputs["source"]
        fields = {
            "positions": source.size // source.shape[-1],
            "channels": source.shape[-1],
            "source_offset": -source.zero_point,
        }
        return RowFunction("tp_ia3_gradient_s32", "tp_ia3_gradient_params", fields)

    def macs(self, op: Operation) -> int:
        return op.inputs["source"].size
