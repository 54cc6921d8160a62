"""DEPTHWISE_CONV_2D_BACKWARD_INPUT of the `dsp` backend."""

from __future__ import annotations

from tinypeft.ir import Operation
from tinypeft.kernels.base import Kernel, Target
from tinypeft.kernels.dsp import plane_routine
from tinypeft.kernels.dsp.gradients import Offer, gradients_of_16_bits
from tinypeft.ops.base import CFunction, KernelCall
from tinypeft.ops.window import Window

#: about what the planes of a band of rows may take
_BAND_BYTES = 2048


def depthwise_backward_input(op: Operation, target: Target) -> Offer:
    """DEPTHWISE_CONV_2D_BACKWARD_INPUT: two channels are made planes, a band of rows at a time."""
    window: Window = op.attributes["window"]
    if not gradients_of_16_bits(op):
        return "no kernel for gradients of 8 bits"
    if (window.kernel_h, window.kernel_w, window.dilation_h, window.dilation_w) != (3, 3, 1, 1):
        return f"no kernel for a dilated or {window.kernel_h}x{window.kernel_w} window"
    if window.output_c != window.input_c or window.input_c % 2:
        return "no kernel for a depth multiplier or an odd number of channels"
    if not (0 <= window.pad_top <= 2 and 0 <= window.pad_left <= 2):
        return "no kernel for windows that begin inside the image, or outside of it"
    if not plane_routine.fits(window.input_w, window.input_c):
        return f"no kernel for {window.input_w} positions of {window.input_c} channels a row"
    call = op.op.call(op)
    assert call is not None
    width = plane_routine.plane_width(window.input_w)
    band = min(window.input_h, max(4, _BAND_BYTES // (4 * width) - 2))
    routine = plane_routine.plane_routine(window.input_w, window.input_c)
    fields = {"conv": call.fields, "band": band, "routine": CFunction(routine.name)}
    row = plane_routine.plane_cycles(window.input_w)
    elements = window.input_h * window.input_w * window.input_c
    return [
        Kernel(
            backend="dsp",
            form="planes of two channels",
            call=KernelCall(
                "tp_depthwise_conv_backward_input_dsp_s16",
                "tp_depthwise_backward_dsp_params",
                fields,
                call.arguments,
            ),
            sources=("dsp/tp_depthwise_backward_dsp.c",),
            routines=(routine,),
            scratch_bytes=4 * (band + 2) * width,
            cycles=window.input_c * (window.input_h * row + 60) + 16 * elements,
            code_bytes=routine.nbytes + 600,
            in_order=True,
        )
    ]
