"""Operators that move or resize data, on real numbers: each is linear, so its gradient is its transposed matrix."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinypeft.ir import Operation

LAYOUT = ("CONCATENATION", "GATHER", "PAD", "RESIZE_BILINEAR", "STRIDED_SLICE", "TRANSPOSE")


def forward(op: Operation, reals: dict[str, np.ndarray]) -> np.ndarray:
    """The output for real operands; padding counts as 0."""
    if op.kind == "CONCATENATION":
        return np.concatenate(list(reals.values()), axis=op.attributes["axis"])
    x = reals["input"]
    if op.kind == "TRANSPOSE":
        return np.transpose(x, op.attributes["permutation"])
    if op.kind == "STRIDED_SLICE":
        return x[op.attributes["region"].slices].reshape(op.output.shape)
    if op.kind == "PAD":
        return np.pad(x, op.attributes["paddings"])
    if op.kind == "GATHER":
        axis, *indices = op.attributes["axis"], *op.attributes["indices"]
        for i, chosen in enumerate(indices):
            x = np.stack([np.take(x, index, axis + i) for index in chosen], axis + i)
        return x.reshape(op.output.shape)
    assert op.kind == "RESIZE_BILINEAR"
    return _interpolated(_interpolated(x, 1, op.attributes["rows"]), 2, op.attributes["columns"])


def _interpolated(x: np.ndarray, axis: int, resize: Any) -> np.ndarray:
    last = x.shape[axis] - 1
    parts = []
    for i in range(resize.output):
        place = min(max((i * resize.step + resize.start) / 1024, 0.0), float(last))
        low = min(int(place), max(last - 1, 0))
        part = place - low
        parts.append((1 - part) * np.take(x, low, axis) + part * np.take(x, min(low + 1, last), axis))
    return np.stack(parts, axis)


def matrices(op: Operation) -> dict[str, np.ndarray]:
    """Operand -> (elements of it, elements of the output): what each weighs in each."""
    found = {}
    for name, tensor in op.inputs.items():
        zeros = {n: np.zeros(t.shape) for n, t in op.inputs.items()}
        units = np.eye(tensor.size).reshape(tensor.size, *tensor.shape)
        found[name] = np.stack([forward(op, zeros | {name: unit}).reshape(-1) for unit in units])
    return found


def gradients(op: Operation, d_output: np.ndarray) -> dict[str, np.ndarray]:
    """The gradient of every operand."""
    return {
        name: (matrix @ d_output.reshape(-1)).reshape(op.inputs[name].shape) for name, matrix in matrices(op).items()
    }


def largest_sum(op: Operation) -> float:
    """The most that outputs of 1 can add up to in a gradient, at least 1: rounding grows with it."""
    return max(1.0, *(float(matrix.sum(axis=1).max()) for matrix in matrices(op).values()))
