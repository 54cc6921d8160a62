"""SPARSE_QUANTIZE: masters of trained rows to int8 with scales of their own; SPARSE_RESTORE: back; how they start."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinypeft import arithmetic
from tinypeft.arithmetic import F32
from tinypeft.ir import Operation, Tensor
from tinypeft.ops.base import CArray, KernelCall, Op, Value, register
from tinypeft.ops.sparse_rows import optional_table
from tinypeft.ops.weighted import ACCUMULATOR_LIMIT

#: largest |bias| in steps of the accumulator; float32 masters tell its steps apart
BIAS_LIMIT = 1 << 22
#: A row whose scale exceeds the base layer's by no more than rounding keeps that.
_SAME_SCALE = F32(1.000001)
#: fold_multiplier and fold_exponent: the scales, see FoldState; l1: the largest sum of |rows| over one input channel
_DERIVED = ("fold_multiplier", "fold_exponent", "l1")


@register
class SparseQuantize(Op):
    """Quantise rows (k,KH,KW,C) and biases (k,), never finer than the base layer, so that fresh rows equal its own.

    Biases are limited so that no input drives an accumulator out of int32.
    """

    name = "SPARSE_QUANTIZE"
    operands = ("master_rows", "master_bias")
    results = ("rows", "bias", "multiplier", "shift", "scale", *_DERIVED)
    source = "tp_sparse_quantize.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        rows = op.inputs["master_bias"].shape
        shapes = dict.fromkeys(self.results, rows) | {"rows": op.inputs["master_rows"].shape}
        return shapes | dict.fromkeys(("fold_exponent", "l1"), (1,))

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        attributes = op.attributes
        masters = arithmetic.limit_float(values["master_rows"]).reshape(len(values["master_bias"]), -1)
        base_scale = attributes["filter_scale"]
        needed = np.abs(masters).max(1) / F32(127.0)
        grown = needed > base_scale * _SAME_SCALE
        scale = np.where(grown, _short_mantissa(needed), base_scale)
        rows = np.clip(arithmetic.round_to_int(masters / scale[:, None]), -127, 127)
        unit = F32(attributes["input_scale"]) * scale
        l1 = np.abs(rows.astype(np.int64)).sum(1)
        limit = np.minimum(BIAS_LIMIT, ACCUMULATOR_LIMIT - l1 * attributes["input_range"])
        bias = np.clip(arithmetic.round_to_int(arithmetic.limit_float(values["master_bias"]) / unit), -limit, limit)
        multiplier, shift = attributes["base_multiplier"].copy(), attributes["base_shift"].copy()
        for row in np.flatnonzero(grown):
            multiplier[row], shift[row] = _float_to_multiplier(unit[row] / F32(attributes["output_scale"]))
        quantized = rows.astype(np.int8).reshape(values["master_rows"].shape)
        return {
            "rows": quantized,
            "bias": bias.astype(np.int32),
            "multiplier": multiplier.astype(np.int32),
            "shift": shift.astype(np.int8),
            "scale": scale,
            **_derived(op, quantized, scale),
        }

    def call(self, op: Operation) -> KernelCall:
        arguments = [*op.inputs.values(), *op.outputs.values()]
        fields = _fields(op, op.inputs["master_rows"])
        return KernelCall("tp_sparse_quantize_f32", "tp_sparse_quantize_params", fields, arguments)


@register
class SparseRestore(Op):
    """The masters that rows stand for, which are quantised to the same integers, and what the backward pass derives."""

    name = "SPARSE_RESTORE"
    operands = ("rows", "bias", "scale")
    results = ("master_rows", "master_bias", *_DERIVED)
    source = "tp_sparse_quantize.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        rows = op.inputs["bias"].shape
        shapes = {"master_rows": op.inputs["rows"].shape, "master_bias": rows, "fold_multiplier": rows}
        return shapes | dict.fromkeys(("fold_exponent", "l1"), (1,))

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        rows, scale = values["rows"], values["scale"]
        masters = rows.reshape(len(scale), -1).astype(np.float32) * scale[:, None]
        return {
            "master_rows": masters.reshape(rows.shape),
            "master_bias": values["bias"].astype(np.float32) * (F32(op.attributes["input_scale"]) * scale),
            **_derived(op, rows, scale),
        }

    def call(self, op: Operation) -> KernelCall:
        arguments = [*op.inputs.values(), *op.outputs.values()]
        fields = _fields(op, op.inputs["rows"])
        return KernelCall("tp_sparse_restore_f32", "tp_sparse_quantize_params", fields, arguments)


def _short_mantissa(x: np.ndarray) -> np.ndarray:
    """float32 >= 0 rounded up to 17 bits: products with int8 are exact, and a restored row finds the same scale."""
    return ((x.astype(np.float32).view(np.uint32) + 0x7F) & 0xFFFFFF80).astype(np.uint32).view(np.float32)


def _float_to_multiplier(real: np.float32) -> tuple[int, int]:
    """The Q31 multiplier and shift of a positive normal float32, exactly; the shift limited to [-31, 30]."""
    bits = int(real.view(np.uint32))
    multiplier = ((bits & 0x7FFFFF) | 0x800000) << 7
    return multiplier, min(max(arithmetic.float_exponent(real) + 1, -31), 30)


def _derived(op: Operation, rows: np.ndarray, scale: np.ndarray) -> dict[str, Value]:
    exponent = arithmetic.float_exponent(scale.max()) - 14
    fold = np.minimum(arithmetic.round_to_int(scale * arithmetic.exp2i(-exponent)), arithmetic.BFP16_MAX)
    l1 = np.abs(rows.astype(np.int64)).reshape(len(scale), -1, rows.shape[-1]).sum(1)
    first = op.attributes["first_channel"]
    groups = np.zeros(len(scale), np.int64) if first is None else first
    return {
        "fold_multiplier": fold.astype(np.int16),
        "fold_exponent": np.array([exponent], np.int32),
        "l1": np.array([max(l1[groups == group].sum(0).max() for group in np.unique(groups))], np.int32),
    }


def _fields(op: Operation, rows: Tensor) -> dict[str, Any]:
    attributes = op.attributes
    return {
        "rows": rows.shape[0],
        "row_size": rows.size // rows.shape[0],
        "filter_c": rows.shape[-1],
        "first_channel": optional_table(attributes["first_channel"], "first_channel"),
        "input_range": attributes["input_range"],
        "input_scale": F32(attributes["input_scale"]),
        "output_scale": F32(attributes["output_scale"]),
        "filter_scale": CArray("float", attributes["filter_scale"], "filter_scale"),
        "base_multiplier": CArray("int32_t", attributes["base_multiplier"], "base_multiplier"),
        "base_shift": CArray("int8_t", attributes["base_shift"], "base_shift"),
    }


@register
class InitializeFromChannels(Op):
    """master[r,...] = q[channel[r],...] * unit[r]: chosen channels of frozen weights in real units.

    The attribute `axis` is that of the channels: 0, or the last of a depthwise filter (1,KH,KW,C).
    """

    name = "INITIALIZE_FROM_CHANNELS"
    operands = ("weights",)
    results = ("master",)
    source = "tp_sparse_quantize.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"master": op.output.shape}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        weights = np.moveaxis(values["weights"], op.attributes["axis"], 0)[op.attributes["channel"]]
        rows = weights.reshape(len(weights), -1).astype(np.float32) * op.attributes["unit"][:, None]
        return {"master": rows.reshape(op.output.shape)}

    def call(self, op: Operation) -> KernelCall:
        weights, channel = op.inputs["weights"], op.attributes["channel"]
        row_size = op.output.size // len(channel)
        last = op.attributes["axis"] != 0
        fields = {
            "rows": len(channel),
            "row_size": row_size,
            "channel_stride": 1 if last else row_size,
            "element_stride": weights.shape[-1] if last else 1,
            "channel": CArray("int16_t", channel, "channel"),
            "unit": CArray("float", op.attributes["unit"], "unit"),
        }
        function = f"tp_initialize_from_channels_{'s8' if weights.dtype == 'int8' else 's32'}"
        return KernelCall(function, "tp_initialize_from_channels_params", fields, [weights, op.output])
