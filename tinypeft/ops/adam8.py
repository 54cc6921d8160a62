"""ADAM8: Adam whose moments are kept in 8 bits, with a scale for each block of a row."""

from __future__ import annotations

import numpy as np

from tinypeft.arithmetic import F32, round_to_int, sqrt_f32
from tinypeft.ir import Operation
from tinypeft.ops.adam import adam_fields, descended, moments, step_size
from tinypeft.ops.base import RowFunction, Value, register
from tinypeft.ops.update import Update

#: consecutive elements of a row that share a scale
BLOCK = 64
_STATES = ("first_moment", "second_moment", "first_scale", "second_scale")


def block_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """(rows, blocks of a row) of a master: the shape of its scales. A vector is one row."""
    rows, row_size = _row_shape(shape)
    return rows, -(-row_size // BLOCK)


def _row_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """(rows, elements of a row)."""
    return (shape[0], int(np.prod(shape[1:], dtype=np.int64))) if len(shape) > 1 else (1, shape[0])


@register
class Adam8(Update):
    """ADAM with block-wise quantised moments (Dettmers et al. 2021, arXiv:2110.02861).

    Of each block the first moment is int8, linear up to its largest magnitude, the second moment uint8, linear in its
    square root: what divides a step keeps its relative error, where a linear second moment would lose small ones and
    so blow up their steps. A root above 0 stays above 0. The step itself uses the moments before they are quantised.
    """

    name = "ADAM8"
    operands = (*Update.operands, *_STATES, "adam_powers")
    results = ("master", *_STATES)
    source = "tp_adam.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        shape = op.inputs["gradient"].shape
        blocks = block_shape(shape)
        return dict.fromkeys(self.results[:3], shape) | dict.fromkeys(self.results[3:], blocks)

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        shape, rate = op.inputs["gradient"].shape, values["learning_rate"]
        gradient, master, first, root = (
            _in_blocks(values[name]) for name in ("gradient", "master", "first_moment", "second_moment")
        )
        first_scale, second_scale = (values[name][..., None] for name in ("first_scale", "second_scale"))
        with np.errstate(all="ignore"):
            root = root.astype(np.float32) * second_scale
            first, second = moments(op, gradient, first.astype(np.float32) * first_scale, root * root)
            root = sqrt_f32(second)
            master = descended(op, master, rate, step_size(rate, values["adam_powers"]), first, root)
            first_code, first_scale = _quantized(first, 127)
            root_code, second_scale = _quantized(root, 255)
        root_code = np.where(root > 0, np.maximum(root_code, 1), root_code)
        return {
            "master": _in_rows(master, shape),
            "first_moment": _in_rows(first_code.astype(np.int8), shape),
            "second_moment": _in_rows(root_code.astype(np.uint8), shape),
            "first_scale": first_scale,
            "second_scale": second_scale,
        }

    def row_function(self, op: Operation) -> RowFunction:
        fields = {"row_size": _row_shape(op.inputs["gradient"].shape)[1], "adam": adam_fields(op)}
        states = tuple(op.inputs[name] for name in (*_STATES, "adam_powers"))
        return RowFunction("tp_adam8_f32", "tp_adam8_params", fields, states, whole_rows=True)


def _in_blocks(values: np.ndarray) -> np.ndarray:
    """(rows, blocks, BLOCK): the rows, filled up with zeros, which neither move nor move others."""
    rows = values.reshape(_row_shape(values.shape))
    filled = np.pad(rows, ((0, 0), (0, -rows.shape[1] % BLOCK)))
    return filled.reshape(rows.shape[0], -1, BLOCK)


def _in_rows(blocks: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The reverse of `_in_blocks`."""
    rows, row_size = _row_shape(shape)
    return np.ascontiguousarray(blocks.reshape(rows, -1)[:, :row_size]).reshape(shape)


def _quantized(values: np.ndarray, codes: int) -> tuple[np.ndarray, np.ndarray]:
    """(int32 codes of magnitude up to `codes`, float32 real value of one code a block) of blocks of float32."""
    largest = np.abs(values).max(axis=-1)
    inverse = np.where(largest > 0, F32(codes) / largest, F32(0.0))
    code = np.clip(round_to_int(values * inverse[..., None]), -codes, codes)
    return code, largest / F32(codes)
