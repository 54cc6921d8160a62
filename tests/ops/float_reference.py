"""Straight-through gradients in float64: plain NumPy over an integer forward pass, without any code of the backward.

Every tensor stands for its real value, scale * (q - zero_point). Rounding passes a gradient unchanged, a clamped output
passes none, and the accumulators of a layer are linear in its input, its weights and its LoRA.
"""

from __future__ import annotations

import itertools
from typing import Any

import bottleneck_reference
import elementwise_reference
import layout_reference
import numpy as np
import sparse_reference

from tinypeft.ir import Operation, Tensor
from tinypeft.ops.activation import output_range

#: Operators that pass -128 and 127 on as they are, or whose clamp is told otherwise.
UNCLAMPED = ("RESHAPE", "INPUT_OFFSET")


def real(tensor: Tensor, q: np.ndarray) -> np.ndarray:
    """The real values, float64; the scale of a filter is one, or one a channel of the first or last axis."""
    if tensor.scale is None:
        return q.astype(np.float64)
    scale = tensor.scale.astype(np.float64)
    if len(scale) > 1:
        axis = 0 if len(scale) == q.shape[0] else q.ndim - 1
        scale = scale.reshape([-1 if i == axis else 1 for i in range(q.ndim)])
    return scale * (q.astype(np.float64) - tensor.zero_point)


class Reference:
    """Gradients by tensor name, given `values` of the forward pass by tensor name."""

    def __init__(self, values: dict[str, Any]):
        self.values = values
        self.gradients: dict[str, np.ndarray] = {}

    def add(self, tensor: Tensor, gradient: np.ndarray) -> None:
        """Add to the gradient of `tensor`."""
        self.gradients[tensor.name] = self.gradients.get(tensor.name, 0.0) + gradient.reshape(tensor.shape)

    def real(self, op: Operation, operand: str) -> np.ndarray:
        """The real values of an operand."""
        tensor = op.inputs[operand]
        return real(tensor, self.values[tensor.name] if tensor.data is None else tensor.data)

    def loss(self, logits: Tensor, label: int) -> None:
        """The gradient of the cross entropy."""
        z = real(logits, self.values[logits.name]).reshape(-1)
        p = np.exp(z - z.max())
        p /= p.sum()
        p[label] -= 1
        self.add(logits, p)

    def backward(self, op: Operation) -> None:
        """Add the gradients of an operation's operands."""
        d_output = self.gradients.get(op.output.name)
        if d_output is None:
            return
        unclamped = (*layout_reference.LAYOUT, *elementwise_reference.UNCLAMPED, *UNCLAMPED)
        if op.output.dtype == "int8" and op.kind not in unclamped and not _keeps_range(op):
            low, high = output_range(op)
            q = self.values[op.output.name]
            d_output = np.where((q > low) & (q < high), d_output, 0.0)
        if op.kind in elementwise_reference.FORMULAS:
            reals = {name: self.real(op, name) for name in op.inputs}
            for name, gradient in elementwise_reference.gradients(op, reals, d_output).items():
                self.add(op.inputs[name], gradient)
            return
        getattr(self, f"_{op.kind.lower()}")(op, d_output)

    def _channels(self, op: Operation, d: np.ndarray) -> np.ndarray:
        """The gradient of the accumulators; adds those of what is trained a channel: output = factor * (sum + bias)."""
        axes = tuple(range(d.ndim - 1))
        if "factors" in op.attributes:
            factor = self.values[op.attributes["factors"].factor.name].astype(np.float64)
            sums = real(op.output, self.values[op.output.name]).reshape(d.shape) / factor
            self.add(op.inputs["multiplier"], (d * sums).sum(axes))
            d = d * factor
        if "trained_bias" in op.attributes:
            self.add(op.inputs["bias"], d.sum(axes))
        return d

    def _weighted(self, op: Operation, d: np.ndarray, taps: list[Any]) -> None:
        """A layer that is a matrix product for each of its taps: (input slice, output slice, filter slice)."""
        x, w = self.real(op, "input"), self.real(op, "filter")
        if w.shape[-1] != x.shape[-1]:
            w = _without_groups(w, x.shape[-1])
        if "scale" in op.inputs:  # a retrained layer has scales of its own
            unit = self.values[op.inputs["scale"].name].astype(np.float64)
            w = self.values[op.inputs["filter"].name] * (unit / float(op.inputs["input"].scale[0]))[:, None]  # type: ignore[index]
        d_x, d_w = np.zeros_like(x), np.zeros_like(w)
        for of_x, of_y, of_w in taps:
            d_x[of_x] += d[of_y] @ w[of_w]
            d_w[of_w] += np.tensordot(d[of_y], x[of_x], (range(d[of_y].ndim - 1), range(d[of_y].ndim - 1)))
        if "hidden" in op.inputs:
            self._lora(op, d, x, d_x, taps)
        self.add(op.inputs["input"], d_x)
        if op.inputs["filter"].data is None:
            self.add(op.inputs["filter"], d_w)
            self.add(op.inputs["bias"], d.reshape(-1, d.shape[-1]).sum(0))

    def _lora(self, op: Operation, d: np.ndarray, x: np.ndarray, d_x: np.ndarray, taps: list[Any]) -> None:
        state, lora_a = op.attributes["lora"], self.lora_a[op.inputs["hidden"].name]
        units, shift = self.values[state.gradient_unit.name], int(self.values[state.hidden_shift.name][0])
        a_scale = float(units[1]) / 2.0**shift
        a = self.values[lora_a.name] * a_scale
        factor = state.b_unit.astype(np.float64) * a_scale * 2.0**shift
        shifts = self.values[op.inputs["lora_shift"].name].astype(np.float64)
        b = self.values[op.inputs["lora_B"].name] / (factor * 2.0**shifts)[:, None]
        scale = state.b_unit.astype(np.float64)  # alpha / r, or the scaling of a bottleneck
        if "filter" in op.inputs:
            scale = scale * op.inputs["filter"].scale
        name = op.inputs["hidden"].name
        value, slope = bottleneck_reference.hidden_of(x, a, taps, d.shape[:-1]), np.ones(1)
        if name in self.functions:
            function, before = self.functions[name]
            unit = float(units[1]) * float(op.inputs["input"].scale[0])  # type: ignore[index]
            slope = function[1](self.values[before.name].reshape(value.shape) * unit)
            value = self.values[name].reshape(value.shape) * unit
        through, d_a, d_b = bottleneck_reference.gradients(d, x, a, b, scale, value, slope, taps)
        d_x += through
        self.add(lora_a, d_a)
        self.add(op.inputs["lora_B"], d_b)

    @property
    def lora_a(self) -> dict[str, Tensor]:
        """hidden -> A, filled by LORA_DOWN's place in the forward pass."""
        return self.values["lora_A of hidden"]

    @property
    def functions(self) -> dict[str, Any]:
        """Result of a HIDDEN_ACTIVATION -> ((the function, its slope), the tensor in front of it)."""
        return self.values.get("functions of hidden", {})

    def _conv_2d(self, op: Operation, d: np.ndarray) -> None:
        self._weighted(op, self._channels(op, d), _taps(op))

    def _fully_connected(self, op: Operation, d: np.ndarray) -> None:
        d = self._channels(op, d.reshape(-1, d.shape[-1]))
        self._weighted(op, d, [(slice(None), slice(None), slice(None))])

    _dense_logits = _fully_connected

    def _sparse_rows(self, op: Operation, d: np.ndarray) -> None:
        for name, gradient in sparse_reference.gradients(op, self.values, self.real(op, "input"), d).items():
            self.add(op.inputs[name], gradient)

    def _replace_channels(self, op: Operation, d: np.ndarray) -> None:
        for name, gradient in sparse_reference.replacing_gradients(op, d).items():
            self.add(op.inputs[name], gradient)

    def _lora_down(self, op: Operation, d: np.ndarray) -> None:
        raise AssertionError("its gradients are those of the layer that it belongs to")

    def _residual_up(self, op: Operation, d: np.ndarray) -> None:
        x = self.real(op, "input")
        d_x = d.copy()
        position = (..., slice(None))
        self._lora(op, d, x, d_x, [(position, position, slice(None))])
        self.add(op.inputs["input"], d_x)

    def _input_offset(self, op: Operation, d: np.ndarray) -> None:
        x, offset = (self.values[op.inputs[name].name] for name in ("input", "offset"))
        passed = np.where(bottleneck_reference.offset_inside(x, offset), d, 0.0)
        self.add(op.inputs["offset"], passed if offset.size == x.size else passed.reshape(-1, len(offset)).sum(0))

    def _depthwise_conv_2d(self, op: Operation, d: np.ndarray) -> None:
        x, w, d = self.real(op, "input"), self.real(op, "filter"), self._channels(op, d)
        d_x = np.zeros_like(x)
        for of_x, of_y, (_, ky, kx) in _taps(op):
            d_x[of_x] += (d[of_y] * w[0, ky, kx]).reshape(*d_x[of_x].shape, -1).sum(-1)
        self.add(op.inputs["input"], d_x)

    def _softmax(self, op: Operation, d: np.ndarray) -> None:
        p = real(op.output, self.values[op.output.name])
        mean = (p * d).sum(axis=-1, keepdims=True) / p.sum(axis=-1, keepdims=True)
        self.add(op.inputs["input"], op.attributes["beta"] * p * (d - mean))

    def _transpose_conv(self, op: Operation, d: np.ndarray) -> None:
        x, w, d = op.inputs["input"], self.real(op, "filter"), self._channels(op, d)
        d_x = np.zeros(x.shape)
        for of_y, of_x, (_, ky, kx) in _taps(op):  # the window goes from output to input
            d_x[of_x] += d[of_y] @ w[:, ky, kx]
        self.add(x, d_x)

    def _mean(self, op: Operation, d: np.ndarray) -> None:
        x, axes = op.inputs["input"], op.attributes["axes"]
        spread = np.broadcast_to(np.expand_dims(d.reshape(_kept(x, axes)), axes), x.shape)
        self.add(x, spread / np.prod([x.shape[axis] for axis in axes]))

    def _reduce(self, op: Operation, d: np.ndarray, sign: int) -> None:
        x, axes = self.real(op, "input") * sign, op.attributes["axes"]
        d_x = np.zeros_like(x)
        kept = [range(1) if axis in axes else range(n) for axis, n in enumerate(x.shape)]
        reduced = [range(n) if axis in axes else range(1) for axis, n in enumerate(x.shape)]
        for at, gradient in zip(itertools.product(*kept), d.reshape(-1), strict=True):
            elements = [tuple(np.add(at, offset)) for offset in itertools.product(*reduced)]
            d_x[max(elements, key=lambda element: x[element])] += gradient
        self.add(op.inputs["input"], d_x)

    def _reduce_max(self, op: Operation, d: np.ndarray) -> None:
        self._reduce(op, d, 1)

    def _reduce_min(self, op: Operation, d: np.ndarray) -> None:
        self._reduce(op, d, -1)

    def _layout(self, op: Operation, d: np.ndarray) -> None:
        for name, gradient in layout_reference.gradients(op, d).items():
            self.add(op.inputs[name], gradient)

    _concatenation = _gather = _pad = _resize_bilinear = _strided_slice = _transpose = _layout

    def _pass(self, op: Operation, d: np.ndarray) -> None:
        self.add(op.inputs["input"], d)

    _reshape = _quantize = _dequantize = _output_logits = _pass

    def _pool(self, op: Operation, d: np.ndarray, largest: bool) -> None:
        x, w = self.real(op, "input"), op.attributes["window"]
        d_x = np.zeros_like(x)
        for y, column, c in np.ndindex(d.shape[1:]):
            top, left = y * w.stride_h - w.pad_top, column * w.stride_w - w.pad_left
            rows = range(max(top, 0), min(top + w.kernel_h, w.input_h))
            columns = range(max(left, 0), min(left + w.kernel_w, w.input_w))
            covered = [(0, i, j, c) for i in rows for j in columns]
            chosen = [max(covered, key=lambda at: x[at])] if largest else covered
            for at in chosen:
                d_x[at] += d[0, y, column, c] / len(chosen)
        self.add(op.inputs["input"], d_x)

    def _max_pool_2d(self, op: Operation, d: np.ndarray) -> None:
        self._pool(op, d, True)

    def _average_pool_2d(self, op: Operation, d: np.ndarray) -> None:
        self._pool(op, d, False)


def _keeps_range(op: Operation) -> bool:
    """Whether it cannot leave the range of int8: a reshape, or a pool without an activation."""
    return op.kind == "RESHAPE" or ("POOL" in op.kind and op.attributes["activation"] == "NONE")


def _without_groups(w: np.ndarray, channels: int) -> np.ndarray:
    """A grouped filter (Cout,KH,KW,Cin/groups) as (Cout,KH,KW,Cin), zero where a filter does not read."""
    groups, each = channels // w.shape[-1], len(w) // (channels // w.shape[-1])
    whole = np.zeros((*w.shape[:-1], channels))
    for group in range(groups):
        filters = slice(group * each, (group + 1) * each)
        whole[filters, :, :, group * w.shape[-1] : (group + 1) * w.shape[-1]] = w[filters]
    return whole


def _kept(x: Tensor, axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for axis, n in enumerate(x.shape) if axis not in axes)


def _taps(op: Operation) -> list[Any]:
    """(input slice, output slice, filter slice) of every tap of a convolution."""
    w = op.attributes["window"]
    found = []
    for ky, kx in np.ndindex(w.kernel_h, w.kernel_w):
        ys = [y for y in range(w.output_h) if 0 <= y * w.stride_h - w.pad_top + ky * w.dilation_h < w.input_h]
        xs = [x for x in range(w.output_w) if 0 <= x * w.stride_w - w.pad_left + kx * w.dilation_w < w.input_w]
        if not ys or not xs:
            continue
        top, left = (
            ys[0] * w.stride_h - w.pad_top + ky * w.dilation_h,
            xs[0] * w.stride_w - w.pad_left + kx * w.dilation_w,
        )
        rows = slice(top, top + (len(ys) - 1) * w.stride_h + 1, w.stride_h)
        columns = slice(left, left + (len(xs) - 1) * w.stride_w + 1, w.stride_w)
        of_y = (slice(None), slice(ys[0], ys[-1] + 1), slice(xs[0], xs[-1] + 1))
        found.append(((slice(None), rows, columns), of_y, (slice(None), ky, kx)))
    return found
