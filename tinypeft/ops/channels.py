"""Channels, along the last axis: which an operator reads, how far what it gives can reach. Defines no operator."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from tinypeft.ir import Operation
from tinypeft.ops.base import Bounds
from tinypeft.ops.weighted import group_count, layer_bias
from tinypeft.ops.window import Window

#: The layers whose output channels each read all of their input's.
_MIXING = ("CONV_2D", "FULLY_CONNECTED")


def own_channels(op: Operation) -> dict[str, np.ndarray] | None:
    """`Op.channel_sources` of an operator that makes each channel of its output from the same one of its input."""
    x, y = op.inputs["input"], op.output
    return {"input": np.arange(y.shape[-1])} if x.shape[-1:] == y.shape[-1:] != () else None


def monotone_bounds(op: Operation, bounds: dict[str, Bounds]) -> Bounds | None:
    """`Op.channel_bounds` of an operator as `own_channels`, whose output only grows where its input does."""
    if "input" not in bounds or op.op.channel_sources(op) is None:
        return None
    x, channels = op.inputs["input"], op.output.shape[-1]
    ends = []
    for end in (bounds["input"].low, bounds["input"].high):
        filled = np.broadcast_to(end.astype(np.int8), x.shape)
        ends.append(op.op.evaluate(op, {"input": filled})["output"].reshape(-1, channels).astype(np.int64))
    return Bounds(ends[0].min(0), ends[1].max(0))


def corner_bounds(op: Operation, bounds: dict[str, Bounds], turns: tuple[int, ...] = ()) -> Bounds | None:
    """`Op.channel_bounds` of an elementwise operator that, given all operands but one, is monotone in that one.

    `turns`: values of operands between any two neighbours of which, and beyond them, that is so.
    """
    if set(bounds) != set(op.inputs) or op.op.channel_sources(op) is None:
        return None
    ends = [
        [(name, end.astype(np.int8)) for end in (b.low, b.high, *(np.clip(turn, b.low, b.high) for turn in turns))]
        for name, b in bounds.items()
    ]
    results = [op.op.evaluate(op, dict(corner))["output"].astype(np.int64) for corner in itertools.product(*ends)]
    channels = op.output.shape[-1]
    return Bounds(*(np.broadcast_to(end(results, axis=0), (channels,)) for end in (np.min, np.max)))


def is_frozen(op: Operation) -> bool:
    """Whether nothing but the input of a layer with weights ever changes."""
    return all(tensor.data is not None for name, tensor in op.inputs.items() if name != "input")


def mixing_filters(op: Operation) -> np.ndarray | None:
    """(Cout, taps, Cin) int8 of a frozen layer that mixes the channels (last axis) of its input; None for others.

    A tap is a place of a convolution's window, or of what a dense layer reads flat.
    """
    if op.kind not in _MIXING or not is_frozen(op):
        return None
    filters, channels = op.inputs["filter"], op.inputs["input"].shape[-1]
    grouped = "window" in op.attributes and group_count(op.attributes["window"], filters) != 1
    if grouped or filters.shape[-1] % channels or filters.data is None:
        return None
    return filters.data.reshape(filters.shape[0], -1, channels)


def mixed_bounds(op: Operation, bounds: dict[str, Bounds], requantized: Callable[..., np.ndarray]) -> Bounds | None:
    """`Op.channel_bounds` of a layer that has `mixing_filters`; `requantized`: accumulators (2, Cout) to outputs."""
    filters = mixing_filters(op)
    if filters is None or "input" not in bounds:
        return None
    low, high = centred(op, bounds["input"])
    weights = filters.astype(np.int64)
    positive, negative = np.maximum(weights, 0).sum(1), np.minimum(weights, 0).sum(1)
    acc = np.stack([positive @ low + negative @ high, positive @ high + negative @ low]) + layer_bias(op)
    return Bounds(*requantized(acc))


def depthwise_bounds(op: Operation, bounds: dict[str, Bounds], requantized: Callable[..., np.ndarray]) -> Bounds | None:
    """The same of a frozen depthwise layer."""
    window: Window = op.attributes["window"]
    weights = op.inputs["filter"].data
    if weights is None or not is_frozen(op) or "input" not in bounds:
        return None
    low, high = (np.repeat(end, window.output_c // window.input_c) for end in centred(op, bounds["input"]))
    taps = weights.reshape(-1, window.output_c).astype(np.int64)
    ends = taps * low, taps * high
    acc = np.stack([np.minimum(*ends).sum(0), np.maximum(*ends).sum(0)]) + layer_bias(op)
    return Bounds(*requantized(acc))


def centred(op: Operation, bounds: Bounds) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) of what a layer reads, without the zero point: padding, where there is any, is 0."""
    zero_point = op.inputs["input"].zero_point
    low, high = bounds.low - zero_point, bounds.high - zero_point
    return (np.minimum(low, 0), np.maximum(high, 0)) if has_padding(op) else (low, high)


def has_padding(op: Operation) -> bool:
    """Whether a layer's window ever lies partly outside its input."""
    return "window" in op.attributes and not op.attributes["window"].inside().all()
