"""LoRA in the accumulator: the down-projection, the quantiser of A and B, and the gradients of both."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tinypeft import arithmetic
from tinypeft.arithmetic import F32
from tinypeft.ir import Operation, Tensor
from tinypeft.ops.base import BlockFloat, Builder, CArray, KernelCall, Op, RowFunction, Value, register
from tinypeft.ops.mantissas import narrowed
from tinypeft.ops.parameter_gradient import ParameterGradient
from tinypeft.ops.weighted import emit_filter_gradient, one_tap_inside
from tinypeft.ops.window import Window

#: An A whose largest element is smaller is all zeros.
A_MIN = F32(2.0**-40)
#: A row of B whose largest element in int8 steps lies in [63.75, 127.5) keeps its shift, so that nothing is clipped and
#: a restored row gets the same integers.
_ROUNDED_UP = F32(257.0 / 256.0)
#: With 4 bits it lies in [66.5, 133), of which seven times a multiplier up to 18 is at most half a step away.
_ROUNDED_DOWN = F32(64.0 / 66.5)
#: l1: the largest sums of |A| over one input channel and of |B| over one hidden channel. gradient_unit: what the
#: gradients of A and B are multiplied by, one over A's scale and the unit of the hidden value.
_DERIVED = {"l1": (2,), "gradient_unit": (2,)}


@register
class LoraDown(Op):
    """hidden = (A * (input - zero_point)) >> hidden_shift, int16: a convolution to r channels, the layer's window."""

    name = "LORA_DOWN"
    operands = ("input", "lora_A", "hidden_shift")
    results = ("hidden",)
    source = "tp_lora.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"hidden": op.attributes["window"].output_shape}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        window: Window = op.attributes["window"]
        x = values["input"].astype(np.float64) - op.inputs["input"].zero_point
        filters = values["lora_A"].reshape(window.output_c, -1).astype(np.float64)
        acc = (window.patches(x).reshape(-1, filters.shape[1]) @ filters.T).astype(np.int64)
        hidden = arithmetic.round_half_up_shift(acc, int(values["hidden_shift"][0]))
        return {"hidden": hidden.astype(np.int16).reshape(window.output_shape)}

    def vjp(self, op: Operation, d_output: Tensor, builder: Builder) -> dict[str, Tensor]:
        gradients: dict[str, Tensor] = {}
        window = op.attributes["window"]
        if builder.needs(op.inputs["lora_A"]):
            d_a = builder.parameter_gradient(op.inputs["lora_A"])
            unit = {"unit": op.attributes["gradient_unit"]}
            emit_filter_gradient(builder, op, op.inputs["input"], d_output, d_a, window, unit)
            gradients["lora_A"] = d_a
        if builder.needs(op.inputs["input"]):
            d_input = builder.gradient(op.inputs["input"])
            operands = {"d_acc": d_output, "filter": op.inputs["lora_A"], "l1": op.attributes["l1"]}
            builder.emit("CONV_2D_BACKWARD_INPUT", op, operands, {"d_input": d_input}, {"window": window})
            gradients["input"] = d_input
        return gradients

    def call(self, op: Operation) -> KernelCall:
        window: Window = op.attributes["window"]
        fields = {
            "window": window.fields(),
            "input_offset": -op.inputs["input"].zero_point,
            "pointwise": int(one_tap_inside(window)),
        }
        arguments = [op.inputs["input"], op.inputs["lora_A"], op.inputs["hidden_shift"], op.output]
        return KernelCall("tp_lora_down_s8", "tp_lora_down_params", fields, arguments)

    def macs(self, op: Operation) -> int:
        window: Window = op.attributes["window"]
        return window.output_h * window.output_w * op.inputs["lora_A"].size


@register
class LoraQuantize(Op):
    """Masters A (r,KH,KW,Cin) and B (Cout,r) to int8 with shifts, so that B.hidden >> shift is in accumulator units.

    k_h keeps hidden inside int16 whatever the input; k_b[c] is the largest that keeps B inside int8, raised where
    the accumulator could otherwise leave int32. `l1` holds the norms that bound the backward pass.
    """

    name = "LORA_QUANTIZE"
    operands = ("master_A", "master_B")
    results: tuple[str, ...] = ("lora_A", "hidden_shift", "lora_B", "lora_shift", "a_scale", "l1", "gradient_unit")
    source = "tp_lora_quantize.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        a, b = op.inputs["master_A"].shape, op.inputs["master_B"].shape
        return {"lora_A": a, "hidden_shift": (1,), "lora_B": b, "lora_shift": b[:1], "a_scale": (1,), **_DERIVED}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        return quantize_masters(op, values, None)

    def call(self, op: Operation) -> KernelCall:
        a, b = op.inputs["master_A"], op.inputs["master_B"]
        arguments = [a, b, *op.outputs.values(), None, None]
        return KernelCall("tp_lora_quantize_f32", "tp_lora_quantize_params", quantize_fields(op, a, b), arguments)


#: (values, their peak in int8 steps) -> (what a row is a multiple of, the row): how a row is rounded to fewer levels
RoundRow = Callable[[np.ndarray, np.float32], tuple[int, np.ndarray]]


def quantize_masters(
    op: Operation, values: dict[str, Value], round_row: RoundRow | None, a_levels: int = 127
) -> dict[str, Value]:
    """What LORA_QUANTIZE gives, A and B as int8; with `round_row` also their rows' multipliers, int8.

    The largest element of A is `a_levels` steps.
    """
    a, b = arithmetic.limit_float(values["master_A"]), arithmetic.limit_float(values["master_B"])
    a_peak = np.abs(a).max()
    scale = a_peak / F32(a_levels) if a_peak >= A_MIN else F32(1.0)
    a_multipliers = np.ones(len(a), np.int8)
    if round_row is None:
        lora_a = np.clip(arithmetic.round_to_int(a / scale), -127, 127).astype(np.int8)
    else:
        lora_a = np.empty(a.shape, np.int8)
        for r, row in enumerate(a):
            a_multipliers[r], lora_a[r] = round_row(row / scale, np.abs(row).max() / scale)
    row_l1 = int(np.abs(lora_a.astype(np.int64)).reshape(a.shape[0], -1).sum(1).max())
    hidden_bound = row_l1 * op.attributes["input_range"]
    k_h = arithmetic.narrow_shift(hidden_bound)
    hidden_peak = int(arithmetic.round_half_up_shift(hidden_bound, k_h))
    factors = (scale * arithmetic.exp2i(k_h)) * op.attributes["b_unit"]
    lora_b, shifts, b_multipliers = np.empty(b.shape, np.int8), np.empty(len(b), np.int8), np.ones(len(b), np.int8)
    for c in range(len(b)):
        shift = _first_shift(b[c], factors[c], _ROUNDED_UP if round_row is None else _ROUNDED_DOWN)
        while True:
            unit = factors[c] * arithmetic.exp2i(shift)
            if round_row is None:
                lora_b[c] = arithmetic.round_to_int(np.clip(b[c] * unit, F32(-127.0), F32(127.0)))
            else:
                b_multipliers[c], lora_b[c] = round_row(b[c] * unit, np.abs(b[c]).max() * unit)
            total = int(np.abs(lora_b[c].astype(np.int64)).sum())
            reach = int(arithmetic.round_half_up_shift(hidden_peak * total, shift))
            if shift >= 24 or reach <= arithmetic.REQUANTIZE_MAX - op.attributes["acc_bound"]:
                break
            shift += 1
        shifts[c] = shift
    return {
        "lora_A": lora_a,
        "hidden_shift": np.array([k_h], np.int8),
        "lora_B": lora_b,
        "lora_shift": shifts,
        "a_scale": np.array([scale], np.float32),
        **_derived(lora_a, lora_b, scale, k_h),
        **({} if round_row is None else {"a_multiplier": a_multipliers, "b_multiplier": b_multipliers}),
    }


def _first_shift(row: np.ndarray, factor: np.float32, headroom: np.float32) -> int:
    """The shift with which the largest element of a row of B, times `headroom`, lies in [64, 128) steps."""
    peak = (np.abs(row).max() * factor) * headroom
    return min(max(6 - arithmetic.float_exponent(peak), -24), 24) if peak > 0 else 24


@register
class LoraRestore(Op):
    """The masters that an adapter's integers stand for, and the norms: what LORA_QUANTIZE would start from."""

    name = "LORA_RESTORE"
    operands: tuple[str, ...] = ("lora_A", "hidden_shift", "lora_B", "lora_shift", "a_scale")
    results = ("master_A", "master_B", "l1", "gradient_unit")
    source = "tp_lora_quantize.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"master_A": op.inputs["lora_A"].shape, "master_B": op.inputs["lora_B"].shape, **_DERIVED}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        return restore_masters(op, values)

    def call(self, op: Operation) -> KernelCall:
        fields = quantize_fields(op, op.inputs["lora_A"], op.inputs["lora_B"])
        arguments = [*op.inputs.values(), *op.outputs.values()]
        return KernelCall("tp_lora_restore_f32", "tp_lora_quantize_params", fields, arguments)


def restore_masters(op: Operation, values: dict[str, Value]) -> dict[str, Value]:
    """What LORA_RESTORE gives, of A and B as int8."""
    lora_a, lora_b, scale = values["lora_A"], values["lora_B"], values["a_scale"][0]
    factors = (scale * arithmetic.exp2i(int(values["hidden_shift"][0]))) * op.attributes["b_unit"]
    units = factors * np.array([arithmetic.exp2i(int(s)) for s in values["lora_shift"]], np.float32)
    return {
        "master_A": lora_a.astype(np.float32) * scale,
        "master_B": lora_b.astype(np.float32) / units[:, None],
        **_derived(lora_a, lora_b, scale, int(values["hidden_shift"][0])),
    }


def _derived(lora_a: np.ndarray, lora_b: np.ndarray, scale: np.float32, hidden_shift: int) -> dict[str, Value]:
    """What the backward pass reads: see `_DERIVED`."""
    a_l1 = np.abs(lora_a.astype(np.int64)).reshape(-1, lora_a.shape[-1]).sum(0).max()
    units = F32(1.0) / scale, scale * arithmetic.exp2i(hidden_shift)
    return {
        "l1": np.array([a_l1, np.abs(lora_b.astype(np.int64)).sum(0).max()], np.int32),
        "gradient_unit": np.array(units, np.float32),
    }


def quantize_fields(op: Operation, a: Tensor, b: Tensor) -> dict[str, int | float | CArray]:
    """The fields of tp_lora_quantize_params, for A and B of these shapes."""
    return {
        "rank": b.shape[1],
        "fan_in": a.size // a.shape[0],
        "input_c": a.shape[-1],
        "output_c": b.shape[0],
        "input_range": op.attributes["input_range"],
        "acc_bound": op.attributes["acc_bound"],
        "b_unit": CArray("float", op.attributes["b_unit"]),
    }


@register
class LoraBackwardHidden(Op):
    """The gradient of the hidden value, times A's scale: d_acc (...,Cout) against B (Cout,r), shifts included."""

    name = "LORA_BACKWARD_HIDDEN"
    operands = ("d_acc", "lora_B", "lora_shift", "hidden_shift", "l1")
    results = ("d_hidden",)
    source = "tp_lora.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"d_hidden": op.output.shape}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        d_acc: BlockFloat = values["d_acc"]
        shifts, l1 = values["lora_shift"].astype(np.int64), int(values["l1"][1])
        shift_min = int(shifts.min())
        finer = 16 - 8 * d_acc.mantissa.itemsize  # so that the shift of a channel costs no bits
        narrow = arithmetic.accumulator_shift(d_acc.peak << finer, l1)
        bound = int(arithmetic.round_half_up_shift(d_acc.peak << finer, narrow)) * l1
        mantissa = d_acc.mantissa.astype(np.int64).reshape(-1, len(shifts)) << finer
        mantissa = arithmetic.round_half_up_shift(mantissa, np.minimum(narrow + shifts - shift_min, 30))
        acc = mantissa @ values["lora_B"].astype(np.int64)
        exponent = d_acc.exponent - finer + narrow - shift_min - int(values["hidden_shift"][0])
        return {"d_hidden": narrowed(op.output, acc, exponent, bound)}

    def scratch_bytes(self, op: Operation) -> int:
        return op.inputs["d_acc"].shape[-1]

    def call(self, op: Operation) -> KernelCall:
        channels = op.inputs["d_acc"].shape[-1]
        fields = {
            "positions": op.inputs["d_acc"].size // channels,
            "rank": op.output.shape[-1],
            "output_c": channels,
        }
        arguments = [*op.inputs.values(), op.output]
        return KernelCall("tp_lora_backward_hidden_s16", "tp_lora_backward_params", fields, arguments)

    def macs(self, op: Operation) -> int:
        return op.inputs["d_acc"].size * op.output.shape[-1]


@register
class LoraBackwardB(ParameterGradient):
    """The gradient of master B (Cout,r): d_output (...,Cout) in front of the requantisation against hidden (...,r)."""

    name = "LORA_BACKWARD_B"
    operands = ("d_output", "source")
    source = "tp_lora.c"

    def reach(self, op: Operation) -> int:
        return op.inputs["d_output"].size // op.inputs["d_output"].shape[-1] * arithmetic.BFP16_MAX

    def total(self, op: Operation, values: dict[str, Value]) -> np.ndarray:
        mantissa = values["d_output"].mantissa.astype(np.float64).reshape(-1, op.inputs["d_output"].shape[-1])
        hidden = values["source"].astype(np.float64).reshape(len(mantissa), -1)
        return (mantissa.T @ hidden).astype(np.int64)  # exact: below 2**53

    def row_function(self, op: Operation) -> RowFunction:
        channels = op.inputs["d_output"].shape[-1]
        fields = {
            "positions": op.inputs["d_output"].size // channels,
            "rank": op.inputs["source"].shape[-1],
            "output_c": channels,
        }
        return RowFunction("tp_lora_gradient_b_s32", "tp_lora_backward_params", fields)

    def macs(self, op: Operation) -> int:
        return op.inputs["d_output"].size * op.inputs["source"].shape[-1]
