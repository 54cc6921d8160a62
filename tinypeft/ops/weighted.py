"""What the layers with weights share: accumulators, the adapter's addend, and their gradients. Defines no operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinypeft.arithmetic import REQUANTIZE_MAX, quantize_multipliers, round_half_up_shift
from tinypeft.errors import ModelError
from tinypeft.ir import Operation, Purpose, Tensor
from tinypeft.ops.base import Builder, CArray, Value
from tinypeft.ops.window import Window

LORA_OPERANDS = ("hidden", "lora_B", "lora_shift")
#: The C file of what a LoRA adds to accumulators, which the kernels of layers call.
LORA_SOURCE = "tp_lora_add.c"
#: Largest |accumulator| of a layer: int32 with room for a zero point and the least that a LoRA may add.
ACCUMULATOR_LIMIT = REQUANTIZE_MAX - 256


@dataclass(frozen=True)
class LoraState:
    """What the backward of a LoRA reads besides the operands of the layer: run-time scalars and constants.

    hidden_shift int8 (1,), l1 int32 (2,), gradient_unit float32 (2,): see tp_lora_quantize_f32. b_unit float32 (Cout,):
    lora_alpha / r / filter scale.
    """

    hidden_shift: Tensor
    l1: Tensor
    gradient_unit: Tensor
    b_unit: np.ndarray


@dataclass(frozen=True)
class FoldState:
    """The channel scales that the backward of a layer applies where they change with training.

    multiplier int16 (Cout,), exponent int32 (1,): scale[c] = multiplier[c] * 2**exponent.
    """

    multiplier: Tensor
    exponent: Tensor


@dataclass(frozen=True)
class BiasState:
    """What a trained bias is besides its operand: base + folded + a change of at most `room`.

    base int64 (Cout,): that of the frozen layer. folded int64 (Cout,): what the operand holds as well, see
    `zero_point_bias`; zeros for other kinds of layer. room: a power of two for which the accumulators have
    room.
    """

    base: np.ndarray
    folded: np.ndarray
    room: int


@dataclass(frozen=True)
class FactorState:
    """The trained factors of a layer's output channels and one over them, float32 (Cout,), as integers hold them."""

    factor: Tensor
    inverse: Tensor


def pointwise(positions: int, input_c: int, output_c: int) -> Window:
    """The 1x1 window that a fully connected layer over `positions` rows is."""
    return Window(positions, 1, input_c, positions, 1, output_c, 1, 1)


def column_bytes(window: Window, groups: int = 1) -> int:
    """Scratch for the inputs of one output position and group, as int16."""
    return 2 * window.kernel_h * window.kernel_w * window.input_c // groups


def group_count(window: Window, filters: Tensor) -> int:
    """How many groups the channels of a convolution are in: filters (..., Cin / groups)."""
    return window.input_c // filters.shape[-1]


def group_fields(window: Window, filters: Tensor) -> dict[str, int]:
    """The same as fields of a kernel's parameters."""
    return {"filter_c": filters.shape[-1], "group_c": window.output_c // group_count(window, filters)}


def whole_filters(filters: np.ndarray, window: Window, first_channel: np.ndarray) -> np.ndarray:
    """(Cout,KH,KW,Cin) float64 of filters that read their own last axis of channels from `first_channel` (Cout,) on."""
    each = filters.reshape(window.output_c, window.kernel_h, window.kernel_w, -1)
    whole = np.zeros((*each.shape[:-1], window.input_c))
    for row, first in enumerate(first_channel):
        whole[row, :, :, first : first + each.shape[-1]] = each[row]
    return whole


def folds_offset(filters: Tensor) -> bool:
    """Whether the input's zero point is in the bias of a convolution or dense layer: its filter is not trained."""
    return filters.data is not None or filters.purpose is Purpose.MERGED_WEIGHT


def reads_directly(window: Window, filters: Tensor) -> bool:
    """Whether the kernel reads int8 inputs as they lie, without a column: one tap inside, an untrained filter."""
    return folds_offset(filters) and one_tap_inside(window)


def one_tap_inside(window: Window) -> bool:
    """Whether the window is 1x1 and always inside the input."""
    one_tap = window.kernel_h == window.kernel_w == 1 and not window.pad_top and not window.pad_left
    inside = (window.output_h - 1) * window.stride_h < window.input_h and (
        (window.output_w - 1) * window.stride_w < window.input_w
    )
    return one_tap and inside


def zero_point_bias(op: Operation) -> np.ndarray:
    """int64 (Cout,): what the input's zero point adds to each accumulator of a convolution or dense layer."""
    weights = op.inputs["filter"].data
    assert weights is not None
    return -op.inputs["input"].zero_point * weights.astype(np.int64).reshape(len(weights), -1).sum(1)


def folded_bias(op: Operation) -> Tensor | CArray:
    """The bias with `zero_point_bias`, which a trained or merged one has by itself."""
    bias = op.inputs.get("bias")
    if "trained_bias" in op.attributes or op.inputs["filter"].purpose is Purpose.MERGED_WEIGHT:
        assert bias is not None
        return bias
    folded = zero_point_bias(op) + (0 if bias is None else _constant_bias(bias))
    return CArray("int32_t", folded.astype(np.int32), "bias")


def bias_or_zeros(op: Operation) -> Tensor | CArray:
    """The bias, of a layer without one zeros."""
    return op.inputs.get("bias") or CArray("int32_t", np.zeros(op.output.shape[-1], np.int32), "bias")


def _constant_bias(bias: Tensor) -> np.ndarray:
    assert bias.data is not None
    return bias.data.astype(np.int64)


def layer_bias(op: Operation) -> np.ndarray:
    """int64 (Cout,): the bias of the frozen layer, zeros where it has none."""
    trained: BiasState | None = op.attributes.get("trained_bias")
    if trained is not None:
        return trained.base
    return _constant_bias(op.inputs["bias"]) if "bias" in op.inputs else np.zeros(op.output.shape[-1], np.int64)


def tap_bytes(window: Window) -> int:
    """Scratch for the list of a depthwise window's taps."""
    return 8 * window.kernel_h * window.kernel_w


def input_scale(op: Operation) -> np.float32:
    """The scale of the operand `input`."""
    scale = op.inputs["input"].scale
    assert scale is not None
    return np.float32(scale[0])


def filter_scales(op: Operation) -> np.ndarray:
    """The float32 scale of each output channel's filter, of the base layer."""
    scale = op.inputs["filter"].scale
    assert scale is not None
    channels = op.output.shape[-1]
    return np.broadcast_to(np.asarray(scale, np.float32), (channels,)).copy()


def frozen_vjp(kind: str, op: Operation, d_output: Tensor, builder: Builder) -> dict[str, Tensor]:
    """The gradients of a convolution with a frozen filter and no LoRA; that of its input by the operator `kind`."""
    d_real, d_acc = output_gradients(op, d_output, builder)
    gradients = channel_gradients(op, d_real, builder)
    if builder.needs(op.inputs["input"]):
        d_input = builder.gradient(op.inputs["input"])
        operands = {"d_acc": d_acc, "filter": op.inputs["filter"]}
        builder.emit(kind, op, operands, {"d_input": d_input}, {"window": op.attributes["window"]})
        gradients["input"] = d_input
    return gradients


def multipliers(op: Operation) -> tuple[np.ndarray, np.ndarray]:
    """(multiplier, shift) per output channel: scales are multiplied in double precision as in LiteRT."""
    assert op.output.scale is not None
    reals = np.float64(input_scale(op)) * filter_scales(op).astype(np.float64) / np.float64(op.output.scale[0])
    return quantize_multipliers(reals, exact=op.kind == "FULLY_CONNECTED")


def requantization(op: Operation, values: dict[str, Value]) -> tuple[np.ndarray, np.ndarray]:
    """The multipliers and shifts in force: operands where they are trained, else the base layer's constants."""
    if "multiplier" in op.inputs:
        return values["multiplier"], values["shift"]
    return multipliers(op)


def requantization_arguments(op: Operation) -> list[Any]:
    """The same as arguments of a kernel call."""
    if "multiplier" in op.inputs:
        return [op.inputs["multiplier"], op.inputs["shift"]]
    multiplier, shift = multipliers(op)
    return [CArray("int32_t", multiplier, "multiplier"), CArray("int8_t", shift, "shift")]


def accumulate(op: Operation, window: Window, values: dict[str, Value]) -> np.ndarray:
    """(OH*OW, Cout) int64 accumulators: filter, bias and what a LoRA adds."""
    x = values["input"].astype(np.float64) - op.inputs["input"].zero_point
    groups = group_count(window, op.inputs["filter"])
    filters = values["filter"].reshape(groups, window.output_c // groups, -1).astype(np.float64)
    patches = window.patches(x).reshape(window.output_h * window.output_w, -1, groups, window.input_c // groups)
    columns = patches.transpose(2, 0, 1, 3).reshape(groups, len(patches), -1)
    acc = columns @ filters.transpose(0, 2, 1)  # exact: every sum is below 2**53
    acc = acc.transpose(1, 0, 2).reshape(len(patches), -1).astype(np.int64)
    if "bias" in op.inputs:
        acc = acc + values["bias"].astype(np.int64)
    if "trained_bias" in op.attributes:
        acc = acc - op.attributes["trained_bias"].folded  # which the inputs above have by themselves
    elif op.inputs["filter"].purpose is Purpose.MERGED_WEIGHT:
        acc = acc + op.inputs["input"].zero_point * values["filter"].astype(np.int64).reshape(
            len(values["filter"]), -1
        ).sum(1)
    if "hidden" in op.inputs:
        hidden = values["hidden"].reshape(acc.shape[0], -1).astype(np.int64)
        acc = acc + round_half_up_shift(hidden @ values["lora_B"].astype(np.int64).T, values["lora_shift"])
    return acc


def accumulator_bound(op: Operation) -> int:
    """The largest |accumulator| over all int8 inputs and all that a bias may be trained to, without a LoRA."""
    weights = op.inputs["filter"].data
    assert weights is not None
    if op.kind == "DEPTHWISE_CONV_2D":  # (1,KH,KW,Cout)
        weights = weights.reshape(-1, weights.shape[-1]).T
    l1 = np.abs(weights.astype(np.int64)).reshape(len(weights), -1).sum(1)
    room = op.attributes["trained_bias"].room if "trained_bias" in op.attributes else 0
    return int((l1 * input_range(op.inputs["input"]) + np.abs(layer_bias(op))).max()) + room


def input_range(tensor: Tensor) -> int:
    """The largest |q - zero_point| of an int8 tensor."""
    return max(127 - tensor.zero_point, tensor.zero_point + 128)


def lora_arguments(op: Operation) -> list[Tensor | int | float | None]:
    """The adapter operands as arguments of a kernel call."""
    return [op.inputs.get(name) for name in LORA_OPERANDS]


def lora_rank(op: Operation) -> int:
    """The rank of the layer's LoRA, 0 without one."""
    return op.inputs["lora_B"].shape[-1] if "lora_B" in op.inputs else 0


def output_gradients(op: Operation, d_output: Tensor, builder: Builder) -> tuple[Tensor, Tensor]:
    """The gradient of a layer in front of its requantisation: in real units, and times the scales of its channels.

    The first is `d_output` itself, clamp and all, where nothing that is trained reads it. The attribute
    `clamped_behind` says that what reads the layer's output already passes no gradient where that was clamped.
    """
    clamp = not op.attributes.get("clamped_behind", False)
    fold: FoldState | None = op.attributes.get("fold")
    scales: dict[str, Any] = {"channel_scale": filter_scales(op)}
    if fold is not None:
        scales = {"multiplier": fold.multiplier, "exponent": fold.exponent}
    if not any(builder.needs(op.inputs.get(name)) for name in ("filter", "bias", "multiplier")):
        return d_output, builder.through_output(op, d_output, clamp, **scales)
    d_real = builder.through_output(op, d_output, clamp)
    return d_real, builder.through_output(op, d_real, clamp=False, **scales)


def weighted_vjp(op: Operation, window: Window, d_output: Tensor, builder: Builder) -> dict[str, Tensor]:
    """The gradients of a layer with weights, given that of its output.

    Emits those of the adapter first, so that the gradient at the accumulators may then be overwritten by the input's.
    """
    d_real, d_acc = output_gradients(op, d_output, builder)
    gradients = lora_gradients(op, d_acc, builder) if "hidden" in op.inputs else {}
    if builder.needs(op.inputs["filter"]):
        d_filter = builder.parameter_gradient(op.inputs["filter"])
        emit_filter_gradient(builder, op, op.inputs["input"], d_real, d_filter, window)
        gradients["filter"] = d_filter
    gradients |= channel_gradients(op, d_real, builder)
    if builder.needs(op.inputs["input"]):
        d_input = builder.gradient(op.inputs["input"])
        operands = {"d_acc": d_acc, "filter": op.inputs["filter"]}
        builder.emit("CONV_2D_BACKWARD_INPUT", op, operands, {"d_input": d_input}, {"window": window})
        gradients["input"] = d_input
    return gradients


def channel_gradients(op: Operation, d_real: Tensor, builder: Builder) -> dict[str, Tensor]:
    """The gradients of what a layer has one of for each output channel: output = factor * (sum + bias)."""
    factors: FactorState | None = op.attributes.get("factors")
    gradients: dict[str, Tensor] = {}
    if factors is not None and builder.needs(op.inputs["multiplier"]):
        d_factor = builder.parameter_gradient(op.inputs["multiplier"])
        operands = {"d_output": d_real, "source": op.output, "channel_unit": factors.inverse}
        assert op.output.scale is not None
        scale = np.asarray(op.output.scale[:1], np.float32)
        builder.emit("IA3_BACKWARD", op, operands, {"gradient": d_factor}, {"scale": scale})
        gradients["multiplier"] = d_factor
    if builder.needs(op.inputs.get("bias")):
        d_bias = builder.parameter_gradient(op.inputs["bias"])
        operands = {"d_output": d_real} | ({} if factors is None else {"channel_unit": factors.factor})
        builder.emit("BIAS_BACKWARD", op, operands, {"gradient": d_bias})
        gradients["bias"] = d_bias
    return gradients


def lora_gradients(op: Operation, d_acc: Tensor, builder: Builder) -> dict[str, Tensor]:
    """The gradients of `hidden` and `lora_B`, given that at the accumulators; A reads the operand `input`."""
    if not (builder.needs(op.inputs["hidden"]) or builder.needs(op.inputs["lora_B"])):
        return {}
    state: LoraState = op.attributes["lora"]
    d_hidden = builder.gradient(op.inputs["hidden"])
    operands = {"d_acc": d_acc, "lora_B": op.inputs["lora_B"], "lora_shift": op.inputs["lora_shift"]}
    operands |= {"hidden_shift": state.hidden_shift, "l1": state.l1}
    builder.emit("LORA_BACKWARD_HIDDEN", op, operands, {"d_hidden": d_hidden})
    d_b = builder.parameter_gradient(op.inputs["lora_B"])
    operands = {"d_output": d_acc, "source": op.inputs["hidden"], "unit": state.gradient_unit}
    units = {"row_scale": state.b_unit, "scale": input_scale(op), "unit_index": 1}
    builder.emit("LORA_BACKWARD_B", op, operands, {"gradient": d_b}, units)
    return {"hidden": d_hidden, "lora_B": d_b}


def emit_filter_gradient(
    builder: Builder,
    op: Operation,
    x: Tensor,
    d_output: Tensor,
    d_filter: Tensor,
    window: Window,
    units: dict[str, Tensor] | None = None,
) -> None:
    """Emit CONV_2D_BACKWARD_FILTER for the input `x` of `op`; `units` are its optional operands."""
    assert x.scale is not None
    attributes = {"window": window, "scale": np.asarray(x.scale[:1], np.float32), "unit_index": 0}
    operands = {"d_output": d_output, "source": x, **(units or {})}
    builder.emit("CONV_2D_BACKWARD_FILTER", op, operands, {"gradient": d_filter}, attributes)


def check_requantization(op: Operation) -> str | None:
    """The constraints that every layer with frozen weights must meet."""
    bound = accumulator_bound(op)
    if bound > ACCUMULATOR_LIMIT:
        return f"its accumulators can reach {bound}, more than int32 holds ({ACCUMULATOR_LIMIT})"
    left = int(multipliers(op)[1].max())
    if left > 30:
        return f"input scale * filter scale / output scale is 2**{left - 1} or more, the limit is 2**30"
    return None


def weight_operands(inputs: list[Tensor | None]) -> dict[str, Tensor]:
    """input, filter and, where present, bias; the weights must be constants."""
    source, weights, bias = inputs[0], inputs[1], inputs[2] if len(inputs) > 2 else None
    if source is None or weights is None or weights.data is None or (bias is not None and bias.data is None):
        raise ModelError("the weights are computed at run time; supported are constant weights")
    if weights.dtype != "int8" or source.dtype != "int8" or (bias is not None and bias.dtype != "int32"):
        raise ModelError(
            f"the operands are {source.dtype} and {weights.dtype}; supported are int8 activations and weights",
            "convert with full int8 quantisation",
        )
    operands = {"input": source, "filter": weights}
    if bias is not None:
        operands["bias"] = bias
    return operands
