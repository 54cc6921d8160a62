"""A sparse update in float64: what its rows give, and their gradients, one output and tap at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tinypeft.ir import Operation


def real_rows(op: Operation, values: dict[str, Any]) -> np.ndarray:
    """(k,KH,KW,C): what the integers of the rows stand for."""
    name = op.inputs["rows"].name
    w = op.attributes["window"]
    rows = values[name].reshape(w.output_c, w.kernel_h, w.kernel_w, -1)
    scale = values[name.replace("_sparse_rows", "_sparse_scale")]
    return rows * scale.astype(np.float64).reshape(-1, 1, 1, 1)


def forward(op: Operation, rows: np.ndarray, bias: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(OH,OW,k): the outputs of rows for a real input, without a clamp."""
    w = op.attributes["window"]
    image = x.reshape(w.input_h, w.input_w, w.input_c)
    y = np.tile(bias.astype(np.float64), (w.output_h, w.output_w, 1))
    for output, tap, position in _taps(op):
        for row, read in enumerate(_channels(op, rows)):
            y[*output, row] += image[*position, read] @ rows[row, *tap]
    return y


def gradients(op: Operation, values: dict[str, Any], x: np.ndarray, d: np.ndarray) -> dict[str, np.ndarray]:
    """Operand -> its gradient, given `d` of the output where it is not clamped."""
    w, rows = op.attributes["window"], real_rows(op, values)
    d_output = d.reshape(w.output_h, w.output_w, -1)
    image = x.reshape(w.input_h, w.input_w, w.input_c)
    d_x, d_rows = np.zeros(image.shape), np.zeros(rows.shape)
    for output, tap, position in _taps(op):
        for row, read in enumerate(_channels(op, rows)):
            d_x[*position, read] += d_output[*output, row] * rows[row, *tap]
            d_rows[row, *tap] += d_output[*output, row] * image[*position, read]
    return {"input": d_x, "rows": d_rows, "bias": d_output.sum((0, 1))}


def replacing_gradients(op: Operation, d: np.ndarray) -> dict[str, np.ndarray]:
    """The same for REPLACE_CHANNELS: each channel to the operand that it comes from."""
    replaced = np.isin(np.arange(d.shape[-1]), op.attributes["channel"])
    return {"base": np.where(replaced, 0.0, d), "rows": d[..., replaced]}


def _channels(op: Operation, rows: np.ndarray) -> list[slice]:
    """The input channels that each row reads."""
    first, count = op.attributes["first_channel"], rows.shape[-1]
    return [slice(int(f), int(f) + count) for f in (np.zeros(len(rows)) if first is None else first)]


def _taps(op: Operation) -> Iterator[tuple[tuple[int, int], tuple[int, int], tuple[int, int]]]:
    """(output, tap, input) positions of every tap inside the image."""
    w = op.attributes["window"]
    for oy, ox, ky, kx in np.ndindex(w.output_h, w.output_w, w.kernel_h, w.kernel_w):
        y, x = oy * w.stride_h - w.pad_top + ky * w.dilation_h, ox * w.stride_w - w.pad_left + kx * w.dilation_w
        if 0 <= y < w.input_h and 0 <= x < w.input_w:
            yield (oy, ox), (ky, kx), (y, x)
