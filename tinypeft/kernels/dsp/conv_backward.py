"""CONV_2D_BACKWARD_INPUT of the `dsp` backend."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tinypeft.ir import Operation, Tensor
from tinypeft.kernels.base import Kernel, Target
from tinypeft.kernels.dsp.column_routine import POSITIONS, Columns, Form, packed_filter, wide_filter
from tinypeft.kernels.dsp.gradients import Offer, gradients_of_16_bits
from tinypeft.kernels.dsp.low_rank_routine import LowRank
from tinypeft.ops.base import CArray, CFunction, KernelCall
from tinypeft.ops.weighted import one_tap_inside
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
    low_rank = LowRank(rows, channels, positions)
    if "addend" in op.inputs and one_tap_inside(window) and positions == window.output_h * window.output_w:
        if low_rank.fits:
            return [_low_rank_kernel(op, low_rank)]
    if positions < POSITIONS:
        return f"no kernel for less than {POSITIONS} positions"
    adds = "addend" in op.inputs
    forms = (Form.PLAIN,) if filters.data is None else (Form.PLAIN, Form.PACKED, Form.WIDE)
    found = [Columns(rows, channels, adds, form) for form in forms]
    kernels = [_column_kernel(op, columns, positions) for columns in found if columns.fits]
    return kernels or f"no kernel for {channels} channels, odd or more than 682"


def _column_kernel(op: Operation, columns: Columns, positions: int) -> Kernel:
    call = op.op.call(op)
    assert call is not None
    filters: Tensor = op.inputs["filter"]
    rest = replace(columns, positions=positions % POSITIONS) if positions % POSITIONS else None
    routines = [each.routine() for each in (columns, rest) if each is not None]
    fields: dict[str, Any] = {"conv": call.fields, "routine": CFunction(routines[0].name)}
    fields |= {"rest": CFunction(routines[1].name) if rest is not None else None, "packed": None}
    arguments, instead = list(call.arguments), None
    table = 0
    if columns.form is not Form.PLAIN:
        assert filters.data is not None
        pack = packed_filter if columns.form is Form.PACKED else wide_filter
        packed = pack(filters.data.reshape(columns.rows, columns.channels))
        fields["packed"], table = CArray("int32_t", packed.view(np.int32), "packed"), packed.nbytes
        if not columns.adds:  # then there is no way back to the portable kernel
            arguments = [None if argument is filters else argument for argument in arguments]
            instead = filters
    window: Window = op.attributes["window"]
    taps = window.kernel_h * window.kernel_w
    gather = 8 * columns.rows if taps == 1 else POSITIONS * (9 * columns.rows + 60 * taps)
    groups = positions // POSITIONS
    return Kernel(
        backend="dsp",
        form=f"{POSITIONS} positions x 2 channels, {columns.form.value}",
        call=KernelCall("tp_conv_backward_input_dsp_s16", "tp_conv_backward_dsp_params", fields, arguments),
        sources=("dsp/tp_conv_backward_dsp.c", "tp_conv_backward.c"),
        routines=tuple(routines),
        scratch_bytes=2 * POSITIONS * (columns.rows + columns.rows % 2),
        cycles=groups * (columns.cycles + gather) + (rest.cycles + gather if rest is not None else 0),
        code_bytes=sum(routine.nbytes for routine in routines) + 1800,
        table_bytes=table,
        instead=instead,
        in_order=True,
    )


def _low_rank_kernel(op: Operation, low_rank: LowRank) -> Kernel:
    call = op.op.call(op)
    assert call is not None
    routine = low_rank.routine()
    fields = {"conv": call.fields, "routine": CFunction(routine.name)}
    params = "tp_conv_backward_low_rank_dsp_params"
    return Kernel(
        backend="dsp",
        form="2 channels, all positions",
        call=KernelCall("tp_conv_backward_low_rank_dsp_s16", params, fields, call.arguments),
        sources=("dsp/tp_conv_backward_low_rank_dsp.c", "tp_conv_backward.c"),
        routines=(routine,),
        scratch_bytes=2 * low_rank.rank,
        cycles=low_rank.cycles,
        code_bytes=routine.nbytes + 650,
        in_order=True,
    )
