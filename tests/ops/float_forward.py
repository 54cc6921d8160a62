"""The operators of a training graph on real numbers, float64, adapters from their masters: no rounding, only clamps.

    real_output(op, reals, shadow)   the output; `reals` are the int8 operands by name, `shadow` what is trained

What a kind of adapter computes is written here from its definition; float_reference.py has the gradients of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import elementwise_reference
import float_reference
import layout_reference
import numpy as np
import sparse_reference
from bottleneck_reference import FUNCTIONS

from tinypeft.ir import Operation, Tensor
from tinypeft.ops.activation import output_range
from tinypeft.ops.constraints import per_tensor
from tinypeft.ops.fully_connected import dense_window

Array = np.ndarray
#: Layers that are a matrix product of patches
_PRODUCTS = ("CONV_2D", "FULLY_CONNECTED", "DENSE_LOGITS")
WEIGHTED = (*_PRODUCTS, "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV")


@dataclass
class Shadow:
    """What a layer is adapted by. `masters`: by the name of the adapter weight, float64; `downs`: LORA_DOWN by its
    result; `functions`: HIDDEN_ACTIVATION by its result.
    """

    masters: dict[str, Array] = field(default_factory=dict)
    downs: dict[str, Operation] = field(default_factory=dict)
    functions: dict[str, Operation] = field(default_factory=dict)

    def master(self, tensor: Tensor | None) -> Array | None:
        """The master behind an operand; None where it is not trained."""
        return None if tensor is None else self.masters.get(tensor.name)

    def down_of(self, op: Operation) -> tuple[Operation, str]:
        """The down-projection of a layer's addend, and its function: "relu", "hard_swish", or "" for none."""
        name, function = op.inputs["hidden"].name, ""
        if name in self.functions:
            activation = self.functions[name]
            name, function = activation.inputs["hidden"].name, "hard_swish" if "gate" in activation.inputs else "relu"
        return self.downs[name], function


def real_output(op: Operation, reals: dict[str, Array], shadow: Shadow) -> Array:
    """The output, clamped where the operator's is; of any shape of the right size."""
    return clamped(op, unclamped_output(op, reals, shadow))


def clamped(op: Operation, y: Array) -> Array:
    """Real values within what int8 and the activation leave."""
    if not clamps(op):
        return y
    scale, zero_point = per_tensor(op.output)
    low, high = output_range(op)
    return np.clip(y, scale * (low - zero_point), scale * (high - zero_point))


def clamps(op: Operation) -> bool:
    """Whether the operator's output may be clamped."""
    unclamped = (*layout_reference.LAYOUT, *elementwise_reference.UNCLAMPED, *float_reference.UNCLAMPED)
    return op.output.dtype == "int8" and op.kind not in unclamped and not float_reference._keeps_range(op)


def unclamped_output(op: Operation, reals: dict[str, Array], shadow: Shadow) -> Array:
    """The output in front of its clamp."""
    if op.kind in elementwise_reference.FORMULAS:
        return elementwise_reference.FORMULAS[op.kind](op, *reals.values())
    if op.kind in layout_reference.LAYOUT:
        return layout_reference.forward(op, reals)
    if op.kind in WEIGHTED:
        return _weighted(op, reals["input"], shadow)
    return globals()[f"_{op.kind.lower()}"](op, reals, shadow)


def _weighted(op: Operation, x: Array, shadow: Shadow) -> Array:
    """factor * (filter x + bias + scaling * B f(A x))."""
    master = shadow.master(op.inputs["filter"])
    filters = float_reference.real(op.inputs["filter"], op.inputs["filter"].data) if master is None else master
    y = _product(op, x, filters)
    y = y + _bias(op, y.shape[-1], shadow)
    if "hidden" in op.inputs:
        y = y + _added(op, x, shadow)
    factors = shadow.master(op.inputs.get("multiplier"))
    return y if factors is None or "factors" not in op.attributes else factors * y


def _product(op: Operation, x: Array, filters: Array) -> Array:
    """(positions, channels)."""
    window = op.attributes.get("window") or dense_window(op)
    if op.kind == "TRANSPOSE_CONV":
        taps = np.einsum("yxi,okli->yxklo", x.reshape(x.shape[-3:]), filters)
        return window.scatter(taps).reshape(-1, len(filters))
    patches = window.patches(x).reshape(-1, window.kernel_h * window.kernel_w, window.input_c)
    if op.kind == "DEPTHWISE_CONV_2D":
        repeated = np.repeat(patches, window.output_c // window.input_c, axis=-1)
        return (repeated * filters.reshape(-1, window.output_c)).sum(1)
    each = filters.shape[-1]
    groups = window.input_c // each
    flat = filters.reshape(groups, len(filters) // groups, -1)
    parts = [patches[..., g * each : (g + 1) * each].reshape(len(patches), -1) @ flat[g].T for g in range(groups)]
    return np.concatenate(parts, axis=1)


def _bias(op: Operation, channels: int, shadow: Shadow) -> Array:
    tensor = op.inputs.get("bias")
    master = shadow.master(tensor)
    if "trained_bias" in op.attributes:  # the master is a change
        scale = float_reference.real(op.inputs["filter"], np.ones(op.inputs["filter"].shape))
        axis = op.inputs["filter"].shape.index(channels) if op.kind != "DEPTHWISE_CONV_2D" else 3
        unit = np.moveaxis(scale, axis, 0).reshape(channels, -1)[:, 0] * per_tensor(op.inputs["input"])[0]
        base = op.attributes["trained_bias"].base * unit
        return base if master is None else base + master
    if master is not None:
        return master
    return np.zeros(channels) if tensor is None or tensor.data is None else float_reference.real(tensor, tensor.data)


def _added(op: Operation, x: Array, shadow: Shadow) -> Array:
    """scaling * B f(A x) at every position."""
    down, function = shadow.down_of(op)
    a, b = shadow.master(down.inputs["lora_A"]), shadow.master(op.inputs["lora_B"])
    assert a is not None and b is not None
    window = down.attributes["window"]
    hidden = window.patches(x).reshape(-1, a.size // len(a)) @ a.reshape(len(a), -1).T
    if function:
        hidden = FUNCTIONS[function][0](hidden)
    scaling = op.attributes["lora"].b_unit.astype(np.float64)
    if "filter" in op.inputs:
        scaling = scaling * np.asarray(op.inputs["filter"].scale, np.float64)
    return scaling * (hidden @ b.T)


def _residual_up(op: Operation, reals: dict[str, Array], shadow: Shadow) -> Array:
    x = reals["input"]
    return x.reshape(-1, x.shape[-1]) + _added(op, x, shadow)


def _input_offset(op: Operation, reals: dict[str, Array], shadow: Shadow) -> Array:
    offset = shadow.master(op.inputs["offset"])
    assert offset is not None
    scale, zero_point = per_tensor(op.inputs["input"])
    moved = (reals["input"].reshape(-1, offset.size) + offset.reshape(-1)).reshape(op.output.shape)
    return np.clip(moved, scale * (-128 - zero_point), scale * (127 - zero_point))


def _sparse_rows(op: Operation, reals: dict[str, Array], shadow: Shadow) -> Array:
    rows, bias = (shadow.master(op.inputs[name]) for name in ("rows", "bias"))
    assert rows is not None and bias is not None
    window = op.attributes["window"]
    rows = rows.reshape(window.output_c, window.kernel_h, window.kernel_w, -1)
    return sparse_reference.forward(op, rows, bias, reals["input"])


def _replace_channels(op: Operation, reals: dict[str, Array], shadow: Shadow) -> Array:
    y = reals["base"].copy()
    y[..., op.attributes["channel"]] = reals["rows"]
    return y


def _softmax(op: Operation, reals: dict[str, Array], shadow: Shadow) -> Array:
    z = op.attributes["beta"] * reals["input"]
    exponentials = np.exp(z - z.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def _same(op: Operation, reals: dict[str, Array], shadow: Shadow) -> Array:
    return reals["input"]


_reshape = _quantize = _dequantize = _output_logits = _same


def _mean(op: Operation, reals: dict[str, Array], shadow: Shadow) -> Array:
    return reals["input"].mean(op.attributes["axes"])


def _reduce_max(op: Operation, reals: dict[str, Array], shadow: Shadow) -> Array:
    return reals["input"].max(op.attributes["axes"])


def _reduce_min(op: Operation, reals: dict[str, Array], shadow: Shadow) -> Array:
    return reals["input"].min(op.attributes["axes"])


def _pooled(op: Operation, x: Array, reduce: Any) -> Array:
    window = op.attributes["window"]
    y = np.empty(window.output_shape)
    for row, column in np.ndindex(window.output_h, window.output_w):
        top, left = row * window.stride_h - window.pad_top, column * window.stride_w - window.pad_left
        taps = x[:, max(top, 0) : top + window.kernel_h, max(left, 0) : left + window.kernel_w]
        y[:, row, column] = reduce(taps, axis=(1, 2))
    return y


def _max_pool_2d(op: Operation, reals: dict[str, Array], shadow: Shadow) -> Array:
    return _pooled(op, reals["input"], np.max)


def _average_pool_2d(op: Operation, reals: dict[str, Array], shadow: Shadow) -> Array:
    return _pooled(op, reals["input"], np.mean)
