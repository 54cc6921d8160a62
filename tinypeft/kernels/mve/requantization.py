"""What kernels with weights share: which requantisations they can do, and the tables of those. Defines no kernel."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinypeft.ir import Operation, Tensor
from tinypeft.ops import CArray
from tinypeft.ops.activation import INT8_MAX, INT8_MIN, output_range
from tinypeft.ops.weighted import layer_bias, multipliers


def refusal(op: Operation) -> str | None:
    """Why a layer has no kernel here whatever its form, as part of a sentence; None where it may have one."""
    if op.inputs["filter"].data is None:
        return "no kernel for weights that are computed on the device"
    if "multiplier" in op.inputs:
        return "no kernel for trained multipliers"
    return None


def twice(op: Operation) -> dict[str, Any] | str:
    """The fields of tp_output_mve, for requantisation with two roundings; or why the kernels have none like it."""
    if int(multipliers(op)[1].max()) > 0:
        return "no kernel for a multiplier of 1 or more"
    low, high = output_range(op)
    ties = low < op.output.zero_point
    if ties and (low, high) != (INT8_MIN, INT8_MAX):
        return "no kernel for an activation that limits negative outputs"
    return {
        "output_offset": op.output.zero_point,
        "activation_min": low,
        "activation_max": high,
        "ties": int(ties),
    }


def multiplier_tables(op: Operation) -> list[CArray]:
    """The multipliers and shifts of all channels."""
    multiplier, shift = multipliers(op)
    return [CArray("int32_t", multiplier, "multiplier"), CArray("int32_t", shift.astype(np.int32), "shift")]


def folded_bias(op: Operation, zero_point: np.ndarray, reads_directly: bool) -> Tensor | CArray | str:
    """The bias with what the zero point of the input adds to the accumulators, int64 (Cout,); or why there is none.

    `reads_directly`: whether the portable kernel has a trained bias hold that as well.
    """
    if "trained_bias" not in op.attributes:
        return CArray("int32_t", wrapped(layer_bias(op) + zero_point), "bias")
    if reads_directly or not zero_point.any():
        return op.inputs["bias"]
    return "no kernel for a trained bias without the zero point of the input"


def wrapped(values: np.ndarray) -> np.ndarray:
    """Integers modulo 2**32 as int32: what is added to them later brings the accumulators back into range."""
    return values.astype(np.int64).astype(np.uint32).view(np.int32)


def packed_bytes(values: np.ndarray) -> CArray:
    """int8 values as a table of int32, whose alignment it has; their number is a multiple of 4."""
    return CArray("int32_t", np.ascontiguousarray(values, np.int8).reshape(-1).view("<i4"), "filter")


def table_bytes(arguments: list[Any]) -> int:
    """Of the tables among the arguments of a call."""
    return sum(argument.values.nbytes for argument in arguments if isinstance(argument, CArray))


def multiple(value: int, of: int) -> int:
    """The least multiple that is not below a value."""
    return -(-value // of) * of
