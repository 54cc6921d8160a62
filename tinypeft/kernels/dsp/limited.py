"""Layers whose accumulators an adapter adds to, for the `dsp` backend.

What it adds is known only when it is there. It is limited to so many bits that whatever lies beyond clamps the output,
at every accumulator of the layer itself: that is proved here, and packing and requantisation are made for accumulators
of that range.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinypeft.ir import Operation
from tinypeft.kernels.dsp.packing import Layer, pack_layer
from tinypeft.kernels.dsp.requantize import AccumulatorRange, Stepped, accumulator_range, constant_channels, outputs_of

#: Bits that addends may be limited to
_BITS = range(16, 24)


@dataclass(frozen=True)
class Limited:
    """A layer in front of packing, for addends of `bits` bits.

    alone  bool (Cout,): channels without weights for which there is no such proof, or whose output is constant; what the
           layer gives there is not theirs
    """

    layer: Layer
    bits: int
    alone: np.ndarray


def limited_layer(op: Operation) -> Limited | str:
    """The layer for as many bits as its cheapest requantisation has room for, or why there is none."""
    own = accumulator_range(op)
    filters = op.inputs["filter"].data
    assert filters is not None
    empty = np.abs(filters.reshape(len(filters), -1)).max(axis=1) == 0
    ends = [outputs_of(op, np.full((len(empty), 1), end)) for end in (1 << 30, -1 << 30)]
    found: Limited | None = None
    reason = "no limit for what an adapter adds is proved to clamp the output"
    for bits in _BITS:
        limit = 1 << (bits - 1)
        clamps = outputs_of(op, (own.low + limit - 1)[:, None]), outputs_of(op, (own.high - limit)[:, None])
        clamped = np.all([clamp == end for clamp, end in zip(clamps, ends, strict=True)], (0, 2))
        wide = AccumulatorRange(own.low - limit, own.high + limit - 1)
        alone = empty & (~clamped | constant_channels(op, wide))
        if not (clamped | alone).all():
            continue
        ranges = AccumulatorRange(np.where(alone, 0, wide.low), np.where(alone, 0, wide.high))
        if (constant_channels(op, ranges) & ~alone).any():
            return "an output channel is constant"
        layer = pack_layer(op, ranges)
        if isinstance(layer, str):
            reason = layer
        elif found is None or isinstance(layer.requantize, Stepped):
            found = Limited(layer, bits, alone)
    return found or reason
