"""AVERAGE_POOL_2D and MAX_POOL_2D, with their gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinypeft.arithmetic import BFP16_MAX, accumulator_shift, round_half_up_shift
from tinypeft.ir import Operation, Tensor
from tinypeft.ops.activation import INT8_MIN, activation_from_tflite, output_range
from tinypeft.ops.base import BlockFloat, Bounds, Builder, KernelCall, Op, Value, register
from tinypeft.ops.channels import monotone_bounds, own_channels
from tinypeft.ops.constraints import require_int8, same_quantization
from tinypeft.ops.mantissas import mantissa_limit, narrowed, stored
from tinypeft.ops.overlap import window_distance
from tinypeft.ops.window import Window, make_window

#: Most taps of an average pool that can be trained through: their reciprocal still has 15 bits.
MAX_TAPS = 1 << 14


class Pool(Op):
    """What both pools share; the attributes are `window` and `activation`."""

    operands = ("input",)
    source = "tp_pool.c"
    kernel = ""

    def from_tflite(
        self, options: Any, inputs: list[Tensor | None], outputs: list[Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        require_int8(inputs[0], *outputs)
        x = inputs[0]
        assert x is not None
        kernel = int(options.filterHeight), int(options.filterWidth)
        window = make_window(options, x.shape, x.shape[-1], kernel)
        return {"input": x}, {"window": window, "activation": activation_from_tflite(options)}

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"output": op.attributes["window"].output_shape}

    def check(self, op: Operation) -> str | None:
        window: Window = op.attributes["window"]
        if op.inputs["input"].shape != window.input_shape:
            return f"{op.inputs['input'].name} has shape {op.inputs['input'].shape}, not {window.input_shape}"
        return same_quantization(op.inputs["input"], op.output)

    def call(self, op: Operation) -> KernelCall:
        low, high = output_range(op)
        fields: dict[str, Any] = {
            "window": op.attributes["window"].fields(),
            "activation_min": low,
            "activation_max": high,
        }
        return KernelCall(self.kernel, "tp_pool_params", fields, [op.inputs["input"], op.outputs["output"]])

    def channel_sources(self, op: Operation) -> dict[str, np.ndarray] | None:
        return own_channels(op)

    def channel_bounds(self, op: Operation, bounds: dict[str, Bounds]) -> Bounds | None:
        return monotone_bounds(op, bounds)

    def behind(self, op: Operation) -> dict[str, int]:
        return {"input": window_distance(op.attributes["window"], False)}

    def before_clamp(self, op: Operation, d_output: Tensor, builder: Builder) -> Tensor:
        """The gradient in front of the activation; without one a pool cannot leave the range of int8."""
        return d_output if op.attributes["activation"] == "NONE" else builder.through_output(op, d_output)


@register
class AveragePool2D(Pool):
    """output = clamp(mean of the taps inside the image, rounded half away from zero)."""

    name = "AVERAGE_POOL_2D"
    kernel = "tp_average_pool_s8"

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        window: Window = op.attributes["window"]
        totals = window.patches(values["input"].astype(np.int64)).sum(axis=(2, 3))
        count = window.inside().sum(axis=(2, 3))[..., None]
        means = np.sign(totals) * ((np.abs(totals) + count // 2) // count)
        return {"output": np.clip(means, *output_range(op)).astype(np.int8)[None]}

    def vjp(self, op: Operation, d_output: Tensor, builder: Builder) -> dict[str, Tensor]:
        x = op.inputs["input"]
        if not builder.needs(x):
            return {}
        d_mean = self.before_clamp(op, d_output, builder)
        d_input = builder.gradient(x)
        attributes = {"window": op.attributes["window"]}
        builder.emit("AVERAGE_POOL_2D_BACKWARD", op, {"d_output": d_mean}, {"d_input": d_input}, attributes)
        return {"input": d_input}


@register
class MaxPool2D(Pool):
    """output = clamp(largest tap inside the image)."""

    name = "MAX_POOL_2D"
    kernel = "tp_max_pool_s8"

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        largest = op.attributes["window"].patches(values["input"], INT8_MIN).max(axis=(2, 3))
        return {"output": np.clip(largest, *output_range(op)).astype(np.int8)[None]}

    def vjp(self, op: Operation, d_output: Tensor, builder: Builder) -> dict[str, Tensor]:
        x = op.inputs["input"]
        if not builder.needs(x):
            return {}
        d_largest = self.before_clamp(op, d_output, builder)
        d_input = builder.gradient(x)
        operands = {"d_output": d_largest, "input": x}
        attributes = {"window": op.attributes["window"]}
        builder.emit("MAX_POOL_2D_BACKWARD", op, operands, {"d_input": d_input}, attributes)
        return {"input": d_input}


class PoolBackward(Op):
    """What both gradients share; the attribute is `window`."""

    operands: tuple[str, ...] = ("d_output",)
    results = ("d_input",)
    source = "tp_pool.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"d_input": op.attributes["window"].input_shape}


@register
class AveragePool2DBackward(PoolBackward):
    """d_input = sum of d_output / taps over the windows that cover it."""

    name = "AVERAGE_POOL_2D_BACKWARD"

    def check(self, op: Operation) -> str | None:
        taps = int(op.attributes["window"].inside().sum(axis=(2, 3)).max())
        if taps > MAX_TAPS:
            return f"an average pool of {taps} taps cannot be trained through, the most is {MAX_TAPS}"
        return None

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        window: Window = op.attributes["window"]
        d_output: BlockFloat = values["d_output"]
        factors, factor_shift, l1 = _reciprocals(window)
        narrow = accumulator_shift(d_output.peak, l1)
        bound = int(round_half_up_shift(d_output.peak, narrow)) * l1
        weighted = round_half_up_shift(d_output.mantissa[0], narrow) * factors[..., None]
        acc = window.scatter(_spread(weighted, window))
        return {"d_input": narrowed(op.output, acc, d_output.exponent + narrow - factor_shift, bound)}

    def call(self, op: Operation) -> KernelCall:
        window: Window = op.attributes["window"]
        _, factor_shift, l1 = _reciprocals(window)
        fields: dict[str, Any] = {"window": window.fields(), "factor_shift": factor_shift, "l1": l1}
        arguments: list[Any] = [op.inputs["d_output"], op.outputs["d_input"]]
        return KernelCall("tp_average_pool_backward_s16", "tp_average_pool_backward_params", fields, arguments)

    def macs(self, op: Operation) -> int:
        window: Window = op.attributes["window"]
        return int(window.inside().sum()) * window.input_c


@register
class MaxPool2DBackward(PoolBackward):
    """Each window's d_output goes to its first largest input, in row-major order."""

    name = "MAX_POOL_2D_BACKWARD"
    operands = ("d_output", "input")

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        window: Window = op.attributes["window"]
        d_output: BlockFloat = values["d_output"]
        shift, overlap = 0, _overlap(window)
        while int(round_half_up_shift(d_output.peak, shift)) * overlap > mantissa_limit(op.output):
            shift += 1
        taps = window.patches(values["input"].astype(np.int16), INT8_MIN - 1)
        flat = taps.reshape(window.output_h, window.output_w, -1, window.input_c)
        first = np.arange(flat.shape[2])[:, None] == flat.argmax(axis=2)[:, :, None, :]
        rounded = round_half_up_shift(d_output.mantissa[0], shift)
        patches = np.where(first.reshape(taps.shape), _spread(rounded, window), 0)
        return {"d_input": stored(op.output, window.scatter(patches), d_output.exponent + shift)}

    def call(self, op: Operation) -> KernelCall:
        window: Window = op.attributes["window"]
        fields: dict[str, Any] = {"window": window.fields(), "overlap": _overlap(window)}
        arguments: list[Any] = [op.inputs["d_output"], op.inputs["input"], op.outputs["d_input"]]
        return KernelCall("tp_max_pool_backward_s16", "tp_max_pool_backward_params", fields, arguments)


def _spread(values: np.ndarray, window: Window) -> np.ndarray:
    """(OH, OW, C) repeated at every tap: (OH, OW, KH, KW, C)."""
    shape = (window.output_h, window.output_w, window.kernel_h, window.kernel_w, values.shape[-1])
    return np.broadcast_to(values[:, :, None, None, :], shape)


def _overlap(window: Window) -> int:
    """The most windows that cover one input."""
    ones = np.ones((window.output_h, window.output_w, 1), np.int64)
    return int(window.scatter(_spread(ones, window)).max())


def _reciprocals(window: Window) -> tuple[np.ndarray, int, int]:
    """(factors, shift, l1): 1 / taps = factors (OH, OW) * 2**-shift, and the largest sum of factors over one input."""
    count = window.inside().sum(axis=(2, 3)).astype(np.int64)
    shift = 14 + (int(count.min()) - 1).bit_length()
    factors = np.minimum(((2 << shift) + count) // (2 * count), BFP16_MAX)
    return factors, shift, int(window.scatter(_spread(factors[..., None], window)).max())
