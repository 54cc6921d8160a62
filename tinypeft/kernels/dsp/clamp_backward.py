"""Gradients through requantisation and its clamp, and the masks of clamps, of the `dsp` backend."""

from __future__ import annotations

from dataclasses import replace

from tinypeft.ir import Operation
from tinypeft.kernels.base import Kernel, Target
from tinypeft.kernels.dsp import scale_routine
from tinypeft.kernels.dsp.gradients import Offer, gradients_of_16_bits
from tinypeft.ops.base import CFunction, KernelCall

#: cycles of an element that no channel scales, by what tells its clamp
_UNSCALED_CYCLES = {"mask": 5, "outputs": 6}


def requantize_backward(op: Operation, target: Target) -> Offer:
    """REQUANTIZE_BACKWARD with a clamp: mantissas in pairs, by a routine where channels are scaled."""
    call = op.op.call(op)
    assert call is not None
    channels = op.output.shape[-1] if op.output.shape else 1
    if not gradients_of_16_bits(op):
        return "no kernel for gradients of 8 bits"
    if not ("output" in op.inputs or "mask" in op.inputs) or "multiplier" in op.inputs:
        return "no kernel without a clamp or with scales that are trained"
    clamp = "mask" if "mask" in op.inputs else "outputs"
    loops = scale_routine.loops(channels, clamp)
    if not loops:
        return f"no kernel for {channels} channels, no multiple of {8 if clamp == 'mask' else 4}"
    kernel = _pairwise(call, "tp_requantize_backward_dsp.c", _UNSCALED_CYCLES[clamp] * op.output.size + 400, 500)
    kernel = replace(kernel, call=replace(kernel.call, params="tp_requantize_backward_dsp_params"))
    if "multiplier" not in call.fields:
        return [replace(kernel, call=replace(kernel.call, fields={"requantize": call.fields}))]
    kernels = []
    for loop in loops:
        routine = scale_routine.scale_routine(clamp, loop)
        fields = {"requantize": call.fields, "loop": loop, "routine": CFunction(routine.name)}
        kernels.append(
            replace(
                kernel,
                form=f"in pairs, {loop} channels a loop",
                call=replace(kernel.call, fields=fields),
                routines=(routine,),
                cycles=scale_routine.scale_cycles(op.output.size // channels, channels, clamp, loop) + 8 * channels,
                code_bytes=kernel.code_bytes + routine.nbytes,
            )
        )
    return kernels


def clamp_mask(op: Operation, target: Target) -> Offer:
    """CLAMP_MASK: four outputs in a word."""
    if op.output.size % 8:
        return f"no kernel for {op.output.size} outputs, no multiple of 8"
    call = op.op.call(op)
    assert call is not None
    return [_pairwise(call, "tp_clamp_mask_dsp.c", op.output.size * 17 // 8, 112)]


def _pairwise(call: KernelCall, source: str, cycles: int, code_bytes: int) -> Kernel:
    """A kernel of `source` in the place of the portable one."""
    stem, _, suffix = call.function.rpartition("_")
    return Kernel(
        backend="dsp",
        form="in pairs",
        call=replace(call, function=f"{stem}_dsp_{suffix}"),
        sources=(f"dsp/{source}",),
        cycles=cycles,
        code_bytes=code_bytes,
        in_order=True,
    )
