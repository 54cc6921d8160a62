"""Layers whose accumulators an adapter adds to, for the `dsp` backend.

What it adds is known only when it is there. It is limited to so many bits that whatever lies beyond clamps the output,
at every accumulator of the layer itself: that is proved here, and packing and requantisation are made for accumulators
of that range.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tinypeft.ir import Operation, Tensor
from tinypeft.kernels.dsp.packing import Layer, pack_layer
from tinypeft.kernels.dsp.requantize import AccumulatorRange, Stepped, accumulator_range, constant_channels, outputs_of

#: Bits that addends may be limited to
_BITS = range(16, 24)


@dataclass(frozen=True)
class Limited:
    """A layer in front of packing, for addends of `bits` bits."""

    layer: Layer
    bits: int


def channels_without_weights(op: Operation) -> np.ndarray:
    """bool (Cout,): of these a bias and what an adapter adds is all there is."""
    filters = op.inputs["filter"].data
    assert filters is not None
    return np.abs(filters.reshape(len(filters), -1)).max(axis=1) == 0


def with_channels(op: Operation, kept: np.ndarray) -> Operation:
    """The convolution with those output channels alone, kept bool (Cout,)."""
    inputs = {name: _rows(t, kept) if name in ("filter", "bias") else t for name, t in op.inputs.items()}
    output = replace(op.output, shape=(*op.output.shape[:-1], int(kept.sum())))
    window = replace(op.attributes["window"], output_c=int(kept.sum()))
    return Operation(op.op, op.name, inputs, {"output": output}, {**op.attributes, "window": window}, op.layer)


def _rows(tensor: Tensor, kept: np.ndarray) -> Tensor:
    assert tensor.data is not None
    data, scale = tensor.data[kept], tensor.scale
    return replace(
        tensor, shape=data.shape, data=data, scale=scale[kept] if scale is not None and len(scale) > 1 else scale
    )


def limited_layer(op: Operation) -> Limited | str:
    """The layer for as many bits as its cheapest requantisation has room for, or why there is none."""
    own = accumulator_range(op)
    ends = [outputs_of(op, np.full((len(own.low), 1), end)) for end in (1 << 30, -1 << 30)]
    found: Limited | None = None
    reason = "no limit for what an adapter adds is proved to clamp the output"
    for bits in _BITS:
        limit = 1 << (bits - 1)
        clamps = outputs_of(op, (own.low + limit - 1)[:, None]), outputs_of(op, (own.high - limit)[:, None])
        if not all((clamp == end).all() for clamp, end in zip(clamps, ends, strict=True)):
            continue
        ranges = AccumulatorRange(own.low - limit, own.high + limit - 1)
        if constant_channels(op, ranges).any():
            return "an output channel is constant"
        layer = pack_layer(op, ranges)
        if isinstance(layer, str):
            reason = layer
        elif found is None or isinstance(layer.requantize, Stepped):
            found = Limited(layer, bits)
    return found or reason
