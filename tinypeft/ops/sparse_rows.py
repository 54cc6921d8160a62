"""SPARSE_ROWS: output channels from trained rows; REPLACE_CHANNELS puts them into a layer's, and what its vjp emits."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinypeft import arithmetic
from tinypeft.ir import Operation, Tensor
from tinypeft.ops.activation import output_range
from tinypeft.ops.base import OPS, BlockFloat, Builder, CArray, KernelCall, Op, Value, register
from tinypeft.ops.conv_2d import clamp_output
from tinypeft.ops.overlap import window_distance
from tinypeft.ops.weighted import FoldState, column_bytes, group_count, input_scale, whole_filters
from tinypeft.ops.window import Window


def optional_table(values: np.ndarray | None, name: str) -> CArray | None:
    """An int16 table of a kernel's parameters, or a null pointer."""
    return None if values is None else CArray("int16_t", values, name)


@register
class SparseRows(Op):
    """Outputs (1,OH,OW,k) of a layer by trained rows (k,KH,KW,Cin/groups) in place of its weights.

    Attributes: `window` with k output channels; `first_channel` int16 (k,), ascending, the first input channel that
    each row reads, or None where every row reads all; `activation`; `rounds_once`, as FULLY_CONNECTED requantises;
    `fold`, a FoldState, and `l1`, what the backward pass derives from the rows; `clamped_behind`, see output_gradients.
    """

    name = "SPARSE_ROWS"
    operands = ("input", "rows", "bias", "multiplier", "shift")
    source = "tp_sparse.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"output": op.output.shape}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        window: Window = op.attributes["window"]
        x = values["input"].astype(np.float64) - op.inputs["input"].zero_point
        filters = whole_filters(values["rows"], window, _first_channels(op)).reshape(window.output_c, -1)
        acc = window.patches(x).reshape(window.output_h * window.output_w, -1) @ filters.T  # exact: below 2**53
        acc = acc.astype(np.int64) + values["bias"]
        requantize = arithmetic.requantize_single if op.attributes["rounds_once"] else arithmetic.requantize_double
        return {"output": clamp_output(op, requantize(acc, values["multiplier"], values["shift"]))}

    def vjp(self, op: Operation, d_output: Tensor, builder: Builder) -> dict[str, Tensor]:
        d_rows = builder.through_output(op, d_output, clamp=not op.attributes["clamped_behind"])
        gradients: dict[str, Tensor] = {}
        attributes = {"window": op.attributes["window"]}
        if op.attributes["first_channel"] is not None:
            attributes["first_channel"] = op.attributes["first_channel"]
        if builder.needs(op.inputs["rows"]):
            gradients["rows"] = builder.parameter_gradient(op.inputs["rows"])
            operands = {"d_output": d_rows, "source": op.inputs["input"]}
            units = {"scale": input_scale(op), "unit_index": 0}
            builder.emit("CONV_2D_BACKWARD_FILTER", op, operands, {"gradient": gradients["rows"]}, attributes | units)
        if builder.needs(op.inputs["bias"]):
            gradients["bias"] = builder.parameter_gradient(op.inputs["bias"])
            builder.emit("BIAS_BACKWARD", op, {"d_output": d_rows}, {"gradient": gradients["bias"]})
        if builder.needs(op.inputs["input"]):
            fold: FoldState = op.attributes["fold"]
            scales = {"multiplier": fold.multiplier, "exponent": fold.exponent}
            d_acc = builder.through_output(op, d_rows, clamp=False, **scales)
            gradients["input"] = builder.gradient(op.inputs["input"])
            operands = {"d_acc": d_acc, "filter": op.inputs["rows"], "l1": op.attributes["l1"]}
            builder.emit("CONV_2D_BACKWARD_INPUT", op, operands, {"d_input": gradients["input"]}, attributes)
        return gradients

    def behind(self, op: Operation) -> dict[str, int]:
        return {"input": window_distance(op.attributes["window"], op.attributes["first_channel"] is None)}

    def scratch_bytes(self, op: Operation) -> int:
        window: Window = op.attributes["window"]
        return column_bytes(window, group_count(window, op.inputs["rows"]))

    def call(self, op: Operation) -> KernelCall:
        low, high = output_range(op)
        fields: dict[str, Any] = {
            "window": op.attributes["window"].fields(),
            "filter_c": op.inputs["rows"].shape[-1],
            "first_channel": optional_table(op.attributes["first_channel"], "first_channel"),
            "input_offset": -op.inputs["input"].zero_point,
            "output_offset": op.output.zero_point,
            "activation_min": low,
            "activation_max": high,
            "rounds_once": int(op.attributes["rounds_once"]),
        }
        arguments = [*(op.inputs[name] for name in self.operands), op.output]
        return KernelCall("tp_sparse_rows_s8", "tp_sparse_rows_params", fields, arguments)

    def macs(self, op: Operation) -> int:
        window: Window = op.attributes["window"]
        return window.output_h * window.output_w * op.inputs["rows"].size


def _first_channels(op: Operation) -> np.ndarray:
    """(k,) the first input channel that each row reads."""
    first: np.ndarray | None = op.attributes["first_channel"]
    return np.zeros(op.inputs["rows"].shape[0], np.int16) if first is None else first


def channels_call(op: Operation, function: str, whole: Tensor) -> KernelCall:
    """A call on the channels `channel` of `whole` (...,C)."""
    channel = op.attributes["channel"]
    fields = {
        "positions": whole.size // whole.shape[-1],
        "channels": whole.shape[-1],
        "rows": len(channel),
        "channel": CArray("int16_t", channel, "channel"),
    }
    return KernelCall(function, "tp_channels_params", fields, [*op.inputs.values(), op.output])


@register
class ReplaceChannels(Op):
    """A layer's output `base` (...,C), with `rows` (1,OH,OW,k) as its channels `channel`, int16 (k,), ascending.

    The attribute `activation` is the layer's: both operands have come through its clamp.
    """

    name = "REPLACE_CHANNELS"
    operands = ("base", "rows")
    source = "tp_sparse.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"output": op.inputs["base"].shape}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        output = values["base"].copy()
        output[..., op.attributes["channel"]] = values["rows"].reshape(*output.shape[:-1], -1)
        return {"output": output}

    def vjp(self, op: Operation, d_output: Tensor, builder: Builder) -> dict[str, Tensor]:
        d_real = builder.through_output(op, d_output)
        gradients: dict[str, Tensor] = {}
        for operand, kind in (("rows", "SELECT_CHANNELS"), ("base", "CLEAR_CHANNELS")):
            if builder.needs(op.inputs[operand]):
                gradients[operand] = builder.gradient(op.inputs[operand])
                outputs = {OPS[kind].results[0]: gradients[operand]}
                builder.emit(kind, op, {"d_output": d_real}, outputs, {"channel": op.attributes["channel"]})
        return gradients

    def in_place(self, op: Operation) -> dict[str, tuple[str, ...]]:
        return {"output": ("base",)}

    def call(self, op: Operation) -> KernelCall:
        return channels_call(op, "tp_replace_channels_s8", op.output)


class _Channels(Op):
    """A gradient d_output (...,C) and the channels of the attribute `channel`, int16 (k,), ascending."""

    operands = ("d_output",)
    source = "tp_sparse.c"
    function: str

    def in_place(self, op: Operation) -> dict[str, tuple[str, ...]]:
        return {self.results[0]: ("d_output",)}

    def call(self, op: Operation) -> KernelCall:
        return channels_call(op, self.function, op.inputs["d_output"])


@register
class SelectChannels(_Channels):
    """Only these channels: (1,OH,OW,k)."""

    name = "SELECT_CHANNELS"
    results = ("selected",)
    function = "tp_select_channels_s16"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"selected": op.output.shape}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        d_output: BlockFloat = values["d_output"]
        selected = d_output.mantissa[..., op.attributes["channel"]]
        return {"selected": BlockFloat(selected.reshape(op.output.shape), d_output.exponent)}


@register
class ClearChannels(_Channels):
    """Zero in these channels, the others as they are."""

    name = "CLEAR_CHANNELS"
    results = ("cleared",)
    function = "tp_clear_channels_s16"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"cleared": op.inputs["d_output"].shape}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        d_output: BlockFloat = values["d_output"]
        cleared = d_output.mantissa.copy()
        cleared[..., op.attributes["channel"]] = 0
        return {"cleared": BlockFloat(cleared, d_output.exponent)}
