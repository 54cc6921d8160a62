"""CONV_2D for Helium: rows of inputs are gathered for a block of positions, then multiplied 16 values at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinypeft.ir import Operation
from tinypeft.kernels.base import Kernel
from tinypeft.kernels.mve.backend import offers
from tinypeft.kernels.mve.backward import pointwise
from tinypeft.kernels.mve.requantization import (
    folded_bias,
    multiple,
    multiplier_tables,
    packed_bytes,
    refusal,
    table_bytes,
    twice,
)
from tinypeft.ops import KernelCall
from tinypeft.ops.activation import INT8_MAX, INT8_MIN
from tinypeft.ops.weighted import (
    group_count,
    lora_arguments,
    lora_rank,
    multipliers,
    reads_directly,
    zero_point_bias,
)
from tinypeft.ops.window import Window

#: What gathered rows may take of the arena: a kernel is offered for each.
_ROOM = (8192, 4096, 1024)
#: The longest rows, in bytes, whose filter stays in vector registers.
_NARROW = 64
_SOURCES = ("mve/tp_gather_mve.c",)


@offers("CONV_2D")
def convolutions(op: Operation) -> Sequence[Kernel] | str:
    """Kernels of more and of less scratch; of none for 1x1 windows, where the output must not lie over the input."""
    window: Window = op.attributes["window"]
    output = twice(op)
    if isinstance(output, str):
        return output
    reason = refusal(op)
    if reason is None and group_count(window, op.inputs["filter"]) != 1:
        reason = "no kernel for groups"
    if reason is not None:
        return reason
    bias = folded_bias(op, zero_point_bias(op), reads_directly(window, op.inputs["filter"]))
    if isinstance(bias, str):
        return bias
    row_bytes = multiple(window.kernel_h * window.kernel_w * window.input_c, 16)
    whole = (output["activation_min"], output["activation_max"]) == (INT8_MIN, INT8_MAX)
    narrow = row_bytes <= _NARROW and (whole or not lora_rank(op))
    if not narrow and window.output_c > 32767:
        return f"no kernel for {window.output_c} channels"
    if not narrow and window.output_c == 1:
        return f"no kernel for one output channel of {row_bytes} values"
    if not narrow and output["ties"] and int(multipliers(op)[1].max()) == 0:
        return "no kernel for a multiplier of 1/2 or more without an activation"
    arguments = [_packed(op, row_bytes, narrow), bias, *multiplier_tables(op)]
    blocks = {_block(window, row_bytes, room, 4 if narrow else 3) for room in _ROOM}
    kernels = [_kernel(op, row_bytes, block, narrow, output, arguments) for block in sorted(blocks, reverse=True)]
    positions = window.output_h * window.output_w
    if pointwise(window) and row_bytes == window.input_c and positions >= 4:
        kernels.insert(0, _kernel(op, row_bytes, positions, narrow, output, arguments, direct=True))
    return kernels


def _kernel(
    op: Operation,
    row_bytes: int,
    block: int,
    narrow: bool,
    output: dict[str, Any],
    tables: list[Any],
    direct: bool = False,
) -> Kernel:
    window: Window = op.attributes["window"]
    rank, together = lora_rank(op), 4 if narrow else 3
    fields = {
        "window": window.fields(),
        "padding": op.inputs["input"].zero_point,
        "row_bytes": row_bytes,
        "block": block,
        "direct": int(direct),
        "rank": rank,
        "output": output,
    }
    name = "narrow" if narrow else "wide"
    no_scratch = [None] if direct and not rank else []
    arguments = [op.inputs["input"], *tables, *(lora_arguments(op) if rank else []), op.output, *no_scratch]
    function = f"tp_conv_{name}{'_lora' if rank else ''}_mve_s8"
    lora_bytes = -(-block // together) * (8 * rank + (16 if narrow else 32)) if rank else 0
    rows = "inputs as they lie" if direct else f"{block} rows of {row_bytes} bytes"
    return Kernel(
        "mve",
        f"{'1 channel' if narrow else '2 channels'} x {together} positions, {rows}",
        KernelCall(function, "tp_conv_mve_params", fields, arguments),
        (f"mve/tp_conv_{name}_mve.c", *_SOURCES),
        scratch_bytes=(0 if direct else block * row_bytes + 16) + lora_bytes,
        cycles=_instructions(window, row_bytes, block, narrow, rank, direct),
        code_bytes=2500,
        table_bytes=table_bytes(arguments),
        in_order=not direct,
    )


def _packed(op: Operation, row_bytes: int, narrow: bool) -> Any:
    """The filters as rows of whole vectors; for the wide kernel two channels in turn, an odd last one and another."""
    data = op.inputs["filter"].data
    assert data is not None
    filters = data.reshape(len(data), -1)
    rows = np.zeros((len(filters), row_bytes), np.int8)
    rows[:, : filters.shape[1]] = filters
    if not narrow:
        if len(rows) % 2:
            rows = np.concatenate([rows[:-1], rows[-2:]])
        return packed_bytes(rows.reshape(-1, 2, row_bytes // 16, 16).transpose(0, 2, 1, 3))
    return packed_bytes(rows)


def _block(window: Window, row_bytes: int, room: int, group: int) -> int:
    """How many positions are gathered at a time: as equal blocks as the room allows, of whole groups."""
    positions = window.output_h * window.output_w
    most = max(room // row_bytes // group * group, 4)
    blocks = -(-positions // most)
    return max(multiple(-(-positions // blocks), group), 4)


def _instructions(window: Window, row_bytes: int, block: int, narrow: bool, rank: int, direct: bool) -> int:
    positions, channels, chunks = window.output_h * window.output_w, window.output_c, row_bytes // 16
    run = window.kernel_w * window.input_c
    copied = 4 + 3 * run // 16 if run % 16 == 0 else 5 if run < 16 else 14 + 3 * run // 16
    at_border = positions - int(window.inside().all(axis=(2, 3)).sum())
    gathered: float = positions * (8 + window.kernel_h * copied) + at_border * (70 + 12 * window.kernel_h)
    if direct:
        gathered = 0
    elif window.kernel_h == window.kernel_w == 1:
        gathered = positions * (copied if run < 16 or run % 16 == 0 else copied + 8)
    if narrow:
        computed: float = channels * (positions * (2 * chunks + 3) + -(-positions // block) * 30)
    else:
        computed = channels / 2 * (positions / 3 * (11.5 * chunks + 38) + -(-positions // block) * 60)
    adapted = channels * positions * (2 + 1.5 * rank) + 20 * positions * rank if rank else 0
    return int(gathered + computed + adapted)
