"""CONV_2D, and the gradients with respect to its input and filter, which fully connected layers and adapters share."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from tinypeft import arithmetic
from tinypeft.errors import ModelError
from tinypeft.ir import Operation, Tensor
from tinypeft.ops.activation import activation_from_tflite, output_range
from tinypeft.ops.base import BlockFloat, Bounds, Builder, CArray, KernelCall, Op, Value, register
from tinypeft.ops.channels import mixed_bounds
from tinypeft.ops.mantissas import added, narrowed
from tinypeft.ops.overlap import window_distance
from tinypeft.ops.weighted import (
    LORA_OPERANDS,
    LORA_SOURCE,
    accumulate,
    bias_or_zeros,
    check_requantization,
    column_bytes,
    folded_bias,
    folds_offset,
    group_count,
    group_fields,
    lora_arguments,
    lora_rank,
    multipliers,
    reads_directly,
    requantization,
    requantization_arguments,
    weight_operands,
    weighted_vjp,
    whole_filters,
)
from tinypeft.ops.window import Window, make_window


def clamp_output(op: Operation, y: np.ndarray) -> np.ndarray:
    """Requantised values to the int8 output, zero point and activation included."""
    return clamped(op, y).astype(np.int8).reshape(op.output.shape)


def clamped(op: Operation, y: np.ndarray) -> np.ndarray:
    """The same of values (..., Cout), as int64 (..., Cout)."""
    return np.clip(y + op.output.zero_point, *output_range(op))


def twice_rounded(op: Operation, acc: np.ndarray) -> np.ndarray:
    """Accumulators (..., Cout) of a frozen convolution to its outputs."""
    return clamped(op, arithmetic.requantize_double(acc, *multipliers(op)))


def conv_fields(op: Operation) -> dict[str, Any]:
    """The fields of tp_conv_params."""
    low, high = output_range(op)
    return {
        "window": op.attributes["window"].fields(),
        "input_offset": -op.inputs["input"].zero_point,
        "output_offset": op.output.zero_point,
        "activation_min": low,
        "activation_max": high,
        "rank": lora_rank(op),
    }


@register
class Conv2D(Op):
    """Convolution of input (1,H,W,Cin) with filter (Cout,KH,KW,Cin/groups), requantisation and clamp.

    A LoRA adds to its accumulators. `multiplier` and `shift` are operands where its scales change with training.
    """

    name = "CONV_2D"
    operands = ("input", "filter")
    optional = ("bias", "multiplier", "shift", *LORA_OPERANDS)
    source = "tp_conv.c"
    limits = "Weights must be constant, the batch 1."

    def from_tflite(
        self, options: Any, inputs: list[Tensor | None], outputs: list[Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        operands = weight_operands(inputs)
        filters = operands["filter"].shape
        channels = operands["input"].shape[3]
        if channels % filters[3] or filters[0] % (channels // filters[3]):
            raise ModelError(f"{filters[0]} filters of {filters[3]} channels do not divide {channels} into groups")
        window = make_window(options, operands["input"].shape, filters[0], (filters[1], filters[2]))
        return operands, {"window": window, "activation": activation_from_tflite(options)}

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"output": op.attributes["window"].output_shape}

    def check(self, op: Operation) -> str | None:
        return check_requantization(op)

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        acc = accumulate(op, op.attributes["window"], values)
        return {"output": clamp_output(op, arithmetic.requantize_double(acc, *requantization(op, values)))}

    def channel_bounds(self, op: Operation, bounds: dict[str, Bounds]) -> Bounds | None:
        return mixed_bounds(op, bounds, functools.partial(twice_rounded, op))

    def vjp(self, op: Operation, d_output: Tensor, builder: Builder) -> dict[str, Tensor]:
        return weighted_vjp(op, op.attributes["window"], d_output, builder)

    def call(self, op: Operation) -> KernelCall:
        window, filters = op.attributes["window"], op.inputs["filter"]
        folded = folds_offset(filters)
        bias = folded_bias(op) if folded else bias_or_zeros(op)
        arguments = [op.inputs["input"], filters, bias, *requantization_arguments(op), *lora_arguments(op), op.output]
        fields = conv_fields(op) | group_fields(window, filters)
        fields |= {"direct": int(reads_directly(window, filters))}
        scratch = [] if self.scratch_bytes(op) else [None]
        function = "tp_conv_s8" if folded else "tp_conv_trained_s8"
        return KernelCall(function, "tp_conv_params", fields, [*arguments, *scratch])

    def scratch_bytes(self, op: Operation) -> int:
        window, filters = op.attributes["window"], op.inputs["filter"]
        return 0 if reads_directly(window, filters) else column_bytes(window, group_count(window, filters))

    def behind(self, op: Operation) -> dict[str, int]:
        window, filters = op.attributes["window"], op.inputs["filter"]
        gathered = group_count(window, filters) == 1 and not reads_directly(window, filters)
        return {"input": window_distance(window, gathered)}

    def sources(self, op: Operation) -> tuple[str, ...]:
        return self.source, LORA_SOURCE

    def macs(self, op: Operation) -> int:
        window: Window = op.attributes["window"]
        per_output = window.kernel_h * window.kernel_w * op.inputs["filter"].shape[-1] + lora_rank(op)
        return window.output_h * window.output_w * window.output_c * per_output


@register
class Conv2DBackwardInput(Op):
    """The gradient of the input: d_acc (1,OH,OW,Cout) and filter to (1,H,W,Cin), plus an addend.

    `l1`, where given, is the run-time norm of a filter that changes; else a constant bounds it. With the attribute
    `first_channel`, int16 (Cout,), ascending, each filter reads its last axis of channels from there on; `l1` is then
    given.
    """

    name = "CONV_2D_BACKWARD_INPUT"
    operands = ("d_acc", "filter")
    optional = ("l1", "addend")
    results = ("d_input",)
    source = "tp_conv_backward.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"d_input": op.output.shape}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        window: Window = op.attributes["window"]
        d_acc: BlockFloat = values["d_acc"]
        addend: BlockFloat | None = values.get("addend")
        l1 = int(values["l1"][0]) if "l1" in op.inputs else _filter_l1(op)
        narrow = arithmetic.accumulator_shift(d_acc.peak, l1)
        bound = int(arithmetic.round_half_up_shift(d_acc.peak, narrow)) * l1
        groups, filters = group_count(window, op.inputs["filter"]), values["filter"]
        if "first_channel" in op.attributes:
            groups, filters = 1, whole_filters(filters, window, op.attributes["first_channel"])
        mantissa = arithmetic.round_half_up_shift(d_acc.mantissa, narrow).astype(np.float64)
        columns = mantissa.reshape(-1, groups, window.output_c // groups).transpose(1, 0, 2)
        filters = filters.reshape(groups, window.output_c // groups, -1).astype(np.float64)
        taps = (columns @ filters).reshape(groups, len(columns[0]), -1, window.input_c // groups).transpose(1, 2, 0, 3)
        shape = window.output_h, window.output_w, window.kernel_h, window.kernel_w, window.input_c
        acc = window.scatter(taps.reshape(shape)).astype(np.int64)
        exponent = d_acc.exponent + narrow
        if addend is not None:
            return {"d_input": added(op.output, acc.reshape(op.output.shape), exponent, bound, addend)}
        return {"d_input": narrowed(op.output, acc, exponent, bound)}

    def in_place(self, op: Operation) -> dict[str, tuple[str, ...]]:
        window: Window = op.attributes["window"]
        unit = (window.kernel_h, window.kernel_w, window.stride_h, window.stride_w) == (1, 1, 1, 1)
        same = unit and not window.pad_top and not window.pad_left
        same = same and window.input_c <= window.output_c and "first_channel" not in op.attributes
        over_acc = ("d_acc",) if same and "addend" not in op.inputs else ()
        return {"d_input": ("addend", *over_acc) if "addend" in op.inputs else over_acc}

    def scratch_bytes(self, op: Operation) -> int:
        window: Window = op.attributes["window"]
        return 2 * window.kernel_h * window.kernel_w * _group_fields(op)["group_c"]

    def call(self, op: Operation) -> KernelCall:
        window: Window = op.attributes["window"]
        fields = {
            "window": window.fields(),
            "l1": 0 if "l1" in op.inputs else _filter_l1(op),
            **_group_fields(op),
        }
        if "first_channel" in op.attributes:
            fields["first_channel"] = CArray("int16_t", op.attributes["first_channel"], "first_channel")
        arguments = [op.inputs["d_acc"], op.inputs["filter"], op.inputs.get("l1"), op.inputs.get("addend"), op.output]
        return KernelCall("tp_conv_backward_input_s16", "tp_conv_backward_params", fields, arguments)

    def macs(self, op: Operation) -> int:
        window: Window = op.attributes["window"]
        return window.output_h * window.output_w * op.inputs["filter"].size


def _group_fields(op: Operation) -> dict[str, int]:
    """filter_c and group_c of the kernel's parameters; the most filters that read the same, where that varies."""
    filters = op.inputs["filter"]
    if "first_channel" not in op.attributes:
        return group_fields(op.attributes["window"], filters)
    _, counts = np.unique(op.attributes["first_channel"], return_counts=True)
    return {"filter_c": filters.shape[-1], "group_c": int(counts.max())}


def _filter_l1(op: Operation) -> int:
    """The largest sum of |filter| over one input channel; of a trained filter what it can be."""
    filters = op.inputs["filter"]
    data = filters.data if filters.data is not None else np.broadcast_to(np.int8(-128), filters.shape)
    groups = group_count(op.attributes["window"], op.inputs["filter"])
    return int(np.abs(data.astype(np.int64)).reshape(groups, -1, data.shape[-1]).sum(1).max())


@register
class GradientAdd(Op):
    """The sum of two gradients of the same tensor."""

    name = "GRADIENT_ADD"
    operands = ("a", "b")
    results = ("sum",)
    source = "tp_conv_backward.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"sum": op.inputs["a"].shape}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        a: BlockFloat = values["a"]
        return {"sum": added(op.output, a.mantissa, a.exponent, a.peak, values["b"])}

    def in_place(self, op: Operation) -> dict[str, tuple[str, ...]]:
        return {"sum": ("a", "b")}

    def call(self, op: Operation) -> KernelCall:
        arguments = [op.inputs["a"], op.inputs["b"], op.output]
        return KernelCall("tp_gradient_add_s16", "tp_gradient_add_params", {"size": op.output.size}, arguments)
