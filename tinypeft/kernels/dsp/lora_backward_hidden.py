"""LORA_BACKWARD_HIDDEN of the `dsp` backend."""

from __future__ import annotations

from dataclasses import replace

from tinypeft.ir import Operation
from tinypeft.kernels.base import Kernel, Target
from tinypeft.kernels.dsp.gradients import Offer, gradients_of_16_bits
from tinypeft.kernels.dsp.shifted_dot_routine import COLUMNS, MOST_CHANNELS, PAIR_WORDS, ShiftedDot
from tinypeft.ops.base import CFunction


def lora_backward_hidden(op: Operation, target: Target) -> Offer:
    """LORA_BACKWARD_HIDDEN: two channels times four columns of B, which are packed first."""
    channels, rank = op.inputs["lora_B"].shape
    if not gradients_of_16_bits(op):
        return "no kernel for gradients of 8 bits"
    dot = ShiftedDot(channels)
    if not dot.fits:
        return f"no kernel for {channels} channels, odd or more than {MOST_CHANNELS}"
    call = op.op.call(op)
    assert call is not None
    positions, routine = op.output.size // rank, dot.routine()
    fields = {"lora": call.fields, "routine": CFunction(routine.name)}
    return [
        Kernel(
            backend="dsp",
            form="2 channels x 4 columns",
            call=replace(
                call,
                function="tp_lora_backward_hidden_dsp_s16",
                params="tp_lora_backward_dsp_params",
                fields=fields,
            ),
            sources=("dsp/tp_lora_backward_hidden_dsp.c",),
            routines=(routine,),
            scratch_bytes=2 * channels * PAIR_WORDS,
            cycles=-(-rank // COLUMNS) * (positions * dot.cycles + 35 * channels),
            code_bytes=950 + routine.nbytes,
        )
    ]
