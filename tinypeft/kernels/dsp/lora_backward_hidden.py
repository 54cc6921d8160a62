"""LORA_BACKWARD_HIDDEN of the `dsp` backend."""

from __future__ import annotations

from dataclasses import replace

from tinypeft.ir import Operation
from tinypeft.kernels.base import Kernel, Target
from tinypeft.kernels.dsp.gradients import Offer, gradients_of_16_bits


def lora_backward_hidden(op: Operation, target: Target) -> Offer:
    """LORA_BACKWARD_HIDDEN: two channels times four columns of B, which are packed first."""
    channels, rank = op.inputs["lora_B"].shape
    if not gradients_of_16_bits(op):
        return "no kernel for gradients of 8 bits"
    if channels % 2:
        return f"no kernel for an odd number of channels, {channels}"
    call = op.op.call(op)
    assert call is not None
    positions = op.output.size // rank
    return [
        Kernel(
            backend="dsp",
            form="2 channels x 4 columns",
            call=replace(call, function="tp_lora_backward_hidden_dsp_s16"),
            sources=("dsp/tp_lora_backward_hidden_dsp.c",),
            scratch_bytes=10 * channels,
            cycles=positions * -(-rank // 4) * (9 * channels + 50) + channels * rank * 5,
            code_bytes=800,
        )
    ]
