"""Gradients through requantisation and its clamp, and the masks of clamps, of the `dsp` backend."""

from __future__ import annotations

from dataclasses import replace

from tinypeft.ir import Operation
from tinypeft.kernels.base import Kernel, Target
from tinypeft.kernels.dsp.gradients import Offer, gradients_of_16_bits
from tinypeft.ops.base import KernelCall


def requantize_backward(op: Operation, target: Target) -> Offer:
    """REQUANTIZE_BACKWARD with a clamp: mantissas in pairs."""
    call = op.op.call(op)
    assert call is not None
    channels = op.output.shape[-1] if op.output.shape else 1
    if not gradients_of_16_bits(op):
        return "no kernel for gradients of 8 bits"
    if not ("output" in op.inputs or "mask" in op.inputs) or "multiplier" in op.inputs:
        return "no kernel without a clamp or with scales that are trained"
    together = 8 if "mask" in op.inputs else 4
    if channels % together:
        return f"no kernel for {channels} channels, no multiple of {together}"
    return [_pairwise(call, "tp_requantize_backward_dsp.c", op.output.size, 11 if "mask" in op.inputs else 15, 900)]


def clamp_mask(op: Operation, target: Target) -> Offer:
    """CLAMP_MASK: four outputs in a word."""
    if op.output.size % 8:
        return f"no kernel for {op.output.size} outputs, no multiple of 8"
    call = op.op.call(op)
    assert call is not None
    return [_pairwise(call, "tp_clamp_mask_dsp.c", op.output.size, 3, 120)]


def _pairwise(call: KernelCall, source: str, elements: int, cycles: int, code_bytes: int) -> Kernel:
    """A kernel of `source` in the place of the portable one; cycles an element."""
    stem, _, suffix = call.function.rpartition("_")
    return Kernel(
        backend="dsp",
        form="in pairs",
        call=replace(call, function=f"{stem}_dsp_{suffix}"),
        sources=(f"dsp/{source}",),
        cycles=cycles * elements,
        code_bytes=code_bytes,
        in_order=True,
    )
