"""A layer's merged weights, float64, quantised again: int8 per output channel and an int32 bias."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinypeft.adapters import MergedLayer
from tinypeft.errors import AdapterError
from tinypeft.ir import Operation
from tinypeft.ops.weighted import filter_scales, input_scale

#: the largest |bias| in steps, which leaves the accumulators room for the products
BIAS_LIMIT = 1 << 30


@dataclass(frozen=True, eq=False)
class QuantizedLayer:
    """A layer as the file takes it.

    filter  int8 in the layout of the operand, None where the base's stays
    scale   float32 of the filter, one an output channel; the base's own, where its filter stays
    bias    int32 in steps of input scale * scale, None where the base's, or none at all, stays
    """

    filter: np.ndarray | None
    scale: np.ndarray
    bias: np.ndarray | None


def quantize_layer(op: Operation, layer: MergedLayer, scale: np.ndarray | None = None) -> QuantizedLayer:
    """`layer` as weights of the base operation `op`, each changed channel with the scale that loses least.

    The base's scale is taken where no other is better, and stays with channels that have not changed. `scale` float32
    (Cout,) prescribes all of them. AdapterError: a bias that no int32 holds.
    """
    tensor = op.inputs["filter"]
    assert tensor.data is not None and tensor.scale is not None
    rows = channel_rows(op, layer.filter)
    unit = np.float64(input_scale(op))
    if scale is None:
        before = channel_rows(op, tensor.data).astype(np.float64)
        scales = filter_scales(op)
        changed = (rows != before * scales.astype(np.float64)[:, None]).any(1)
        if not changed.any():
            return QuantizedLayer(None, tensor.scale, _bias(op, layer.bias, unit, scales, same_scale=True))
        least = np.abs(layer.bias) / (unit * BIAS_LIMIT)
        scale = np.where(changed, _best_scales(rows, before, scales, least), scales).astype(np.float32)
    steps = np.clip(np.rint(rows / scale.astype(np.float64)[:, None]), -128, 127).astype(np.int8)
    filters = channels_back(op, steps, layer.filter.shape)
    return QuantizedLayer(filters, scale, _bias(op, layer.bias, unit, scale, same_scale=False))


def channel_rows(op: Operation, filters: np.ndarray) -> np.ndarray:
    """The filter of `op` as (Cout, values of a channel)."""
    axis = filters.ndim - 1 if op.kind == "DEPTHWISE_CONV_2D" else 0
    return np.moveaxis(filters, axis, 0).reshape(filters.shape[axis], -1)


def channels_back(op: Operation, rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The reverse of `channel_rows`."""
    if op.kind != "DEPTHWISE_CONV_2D":
        return np.ascontiguousarray(rows.reshape(shape))
    return np.ascontiguousarray(np.moveaxis(rows.reshape(shape[-1], *shape[:-1]), 0, -1))


def _best_scales(rows: np.ndarray, before: np.ndarray, scales: np.ndarray, least: np.ndarray) -> np.ndarray:
    """float32 (Cout,): of each channel the base's scale, one that fills int8, or one that keeps the base's largest
    weight, so that a channel that is only scaled loses nothing; whichever has the smallest squared error.
    """
    peak, largest = np.abs(rows).max(1), np.maximum(np.abs(before).max(1), 1.0)
    candidates = np.stack([scales, np.maximum(peak / 127, least), np.maximum(peak / largest, least)])
    candidates = np.where(candidates > 0, candidates, scales).astype(np.float32)
    errors = []
    for candidate in candidates.astype(np.float64):
        steps = np.clip(np.rint(rows / candidate[:, None]), -127, 127)
        lost = ((steps * candidate[:, None] - rows) ** 2).sum(1)
        errors.append(np.where(candidate >= least, lost, np.inf))
    return candidates[np.argmin(errors, axis=0), np.arange(len(rows))]


def _bias(
    op: Operation, bias: np.ndarray, unit: np.float64, scale: np.ndarray, *, same_scale: bool
) -> np.ndarray | None:
    """int32 (Cout,), or None where the file's bias stays."""
    steps = np.rint(bias / (unit * scale.astype(np.float64)))
    if np.abs(steps).max(initial=0) > np.iinfo(np.int32).max:
        raise AdapterError(
            f"{op.layer}: its merged bias has {np.abs(steps).max():.4g} steps, int32 holds {np.iinfo(np.int32).max}",
            "train with a smaller rate",
        )
    present = op.inputs.get("bias")
    if present is None:
        return steps.astype(np.int32) if steps.any() else None
    assert present.data is not None
    return None if same_scale and np.array_equal(steps, present.data) else steps.astype(np.int32)
