"""CONV_2D_BACKWARD_INPUT of the `dsp` backend."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinypeft.ir import Operation, Tensor
from tinypeft.kernels.base import Kernel, Target
from tinypeft.kernels.dsp.column_routine import POSITIONS, Columns, packed_filter
from tinypeft.kernels.dsp.gradients import Offer, gradients_of_16_bits
from tinypeft.ops.base import CArray, CFunction, KernelCall
from tinypeft.ops.window import Window


def conv_backward_input(op: Operation, target: Target) -> Offer:
    """CONV_2D_BACKWARD_INPUT: four positions share a pass over two channels of the filter."""
    window: Window = op.attributes["window"]
    filters: Tensor = op.inputs["filter"]
    rows, channels = window.kernel_h * window.kernel_w * window.output_c, window.input_c
    if not gradients_of_16_bits(op):
        return "no kernel for gradients of 8 bits"
    if "first_channel" in op.attributes or filters.shape[-1] != channels:
        return "no kernel for groups"
    positions = window.input_h * window.input_w
    if positions < POSITIONS:
        return f"no kernel for less than {POSITIONS} positions"
    adds = "addend" in op.inputs
    forms = {Columns(rows, channels, adds): "looped"}
    if rows > 16:
        forms[Columns(rows, channels, adds, straight=True)] = "straight"
    if filters.data is not None:
        forms[Columns(rows, channels, adds, straight=True, packed=True)] = "straight, packed"
    found = [_column_kernel(op, columns, positions, name) for columns, name in forms.items() if columns.fits]
    return found or f"no kernel for {channels} channels, odd or more than 682"


def _column_kernel(op: Operation, columns: Columns, positions: int, name: str) -> Kernel:
    call = op.op.call(op)
    assert call is not None
    filters: Tensor = op.inputs["filter"]
    routine = columns.routine()
    fields: dict[str, Any] = {"conv": call.fields, "routine": CFunction(routine.name), "packed": None}
    table = 0
    if columns.packed:
        assert filters.data is not None
        packed = packed_filter(filters.data.reshape(columns.rows, columns.channels))
        fields["packed"], table = CArray("int32_t", packed.view(np.int32), "packed"), packed.nbytes
    gather = (5 if columns.rows == op.attributes["window"].output_c else 16) * columns.rows
    scratch = 2 * POSITIONS * (columns.rows + columns.rows % 2 + columns.channels)
    return Kernel(
        backend="dsp",
        form=f"{POSITIONS} positions x 2 channels, {name}",
        call=KernelCall("tp_conv_backward_input_dsp_s16", "tp_conv_backward_dsp_params", fields, call.arguments),
        sources=("dsp/tp_conv_backward_dsp.c", "tp_conv_backward.c"),
        routines=(routine,),
        scratch_bytes=scratch,
        cycles=-(-positions // POSITIONS) * (columns.cycles + gather),
        code_bytes=routine.nbytes + 700,
        table_bytes=table,
        in_order=True,
    )
