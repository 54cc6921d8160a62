"""FULLY_CONNECTED for Helium: 16 inputs of four output channels at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tinypeft.ir import Operation, Tensor
from tinypeft.kernels.base import Kernel
from tinypeft.kernels.mve.backend import offers
from tinypeft.kernels.mve.requantization import (
    folded_bias,
    multiple,
    packed_bytes,
    refusal,
    table_bytes,
)
from tinypeft.ops import CArray, KernelCall
from tinypeft.ops.activation import output_range
from tinypeft.ops.fully_connected import dense_window
from tinypeft.ops.weighted import (
    accumulator_bound,
    lora_arguments,
    lora_rank,
    multipliers,
    reads_directly,
    zero_point_bias,
)

#: Output channels that are computed together.
_TOGETHER = 4


@offers("FULLY_CONNECTED")
def dense(op: Operation) -> Sequence[Kernel] | str:
    """A kernel that reads inputs as they lie, where they fill whole vectors, and one that copies them first."""
    window = dense_window(op)
    channels, rank = multiple(window.output_c, _TOGETHER), lora_rank(op)
    reason = refusal(op) or _rounding(op)
    if reason is not None:
        return reason
    bias = folded_bias(op, zero_point_bias(op), reads_directly(window, op.inputs["filter"]))
    if isinstance(bias, str):
        return bias
    if isinstance(bias, Tensor) and channels != window.output_c:
        return f"no kernel for a trained bias of {window.output_c} channels, no multiple of {_TOGETHER}"
    row_bytes = multiple(window.input_c, 16)
    multiplier, shift = multipliers(op)
    tables = [
        bias if isinstance(bias, Tensor) else CArray("int32_t", _filled(bias.values, channels), "bias"),
        CArray("int32_t", _filled(multiplier, channels), "multiplier"),
        CArray("int32_t", _filled(shift.astype(np.int32) + 1, channels), "shift"),
    ]
    arguments = [_packed(op, row_bytes, channels), *tables]
    low, high = output_range(op)
    fields = {
        "positions": window.input_h,
        "input_c": window.input_c,
        "output_c": window.output_c,
        "row_bytes": row_bytes,
        "rank": rank,
        "output_offset": op.output.zero_point,
        "activation_min": low,
        "activation_max": high,
    }
    adapter = lora_arguments(op) if rank else []
    call = KernelCall(
        f"tp_fully_connected{'_lora' if rank else ''}_mve_s8",
        "tp_fully_connected_mve_params",
        fields,
        [op.inputs["input"], *arguments, *adapter, op.output],
    )
    chunks = row_bytes // 16
    each = channels // _TOGETHER * (10 * chunks + 30 + (16 + 7 * rank if rank else 0)) + 3 * chunks + 20
    copying = Kernel(
        "mve",
        f"dense, {_TOGETHER} channels x 16 inputs",
        call,
        ("mve/tp_fully_connected_mve.c",),
        scratch_bytes=row_bytes,
        cycles=window.input_h * each,
        code_bytes=330,
        table_bytes=table_bytes(arguments),
        in_order=True,
    )
    if row_bytes != window.input_c:
        return [copying]
    direct = replace(
        copying,
        form=f"{copying.form} as they lie",
        call=replace(call, arguments=[*call.arguments, None]),
        scratch_bytes=0,
        cycles=window.input_h * (each - 3 * chunks),
        in_order=False,
    )
    return [direct, copying]


def _rounding(op: Operation) -> str | None:
    """Why the high half of a product, rounded half up, is not what rounds once and away from zero; None where it is.

    They differ where a negative product is a tie, so that its low half is 0: not for accumulators that are too small
    for a multiple of 2**32.
    """
    multiplier, shift = multipliers(op)
    if int(shift[multiplier != 0].max(initial=-2)) > -2:
        return "no kernel for a multiplier of 1/4 or more"
    bits = 31 if lora_rank(op) else accumulator_bound(op).bit_length()  # what a LoRA adds leaves them inside int32
    trailing = max((int(m) & -int(m)).bit_length() - 1 for m in multiplier)
    if bits + trailing > 32:
        return f"no kernel for accumulators of {bits} bits with a multiplier that ends in {trailing} zeros"
    return None


def _filled(values: np.ndarray, channels: int) -> np.ndarray:
    return np.concatenate([values, np.zeros(channels - len(values), values.dtype)]).astype(np.int32)


def _packed(op: Operation, row_bytes: int, channels: int) -> CArray:
    """Four channels in turn, 16 values of each; zeros where there are none."""
    data = op.inputs["filter"].data
    assert data is not None
    rows = np.zeros((channels, row_bytes), np.int8)
    rows[: len(data), : data.shape[1]] = data
    return packed_bytes(rows.reshape(-1, _TOGETHER, row_bytes // 16, 16).transpose(0, 2, 1, 3))
