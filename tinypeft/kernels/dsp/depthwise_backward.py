"""DEPTHWISE_CONV_2D_BACKWARD_INPUT of the `dsp` backend."""

from __future__ import annotations

from typing import Any

from tinypeft.ir import Operation
from tinypeft.kernels.base import Kernel, Target
from tinypeft.kernels.dsp import plane_filter, plane_gather
from tinypeft.kernels.dsp.gradients import Offer, gradients_of_16_bits
from tinypeft.ops.base import CFunction, KernelCall
from tinypeft.ops.window import Window

#: about what the planes of a band of rows may take
_BAND_BYTES = 2048
#: mantissas that give results shifted by s < 8 are within 16 bits times 2^(8-s) where the filter's L1 norm is at least
#: 2^8; a smaller norm leaves as many bits to doubling sums
_NORM_BITS = 8
#: of the driver, without its routines
_CODE_BYTES = 1200
#: cycles of two channels beside their rows; of an output that the routine does not gather; of an element's peak
_CHANNELS_CYCLES, _OUTPUT_CYCLES, _PEAK_CYCLES = 640, 11, 2


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
    if not (plane_filter.fits(window.input_w) and plane_gather.fits(window.input_c)):
        return f"no kernel for {window.input_w} positions of {window.input_c} channels a row"
    call = op.op.call(op)
    assert call is not None
    height, width, channels = window.input_shape[1:]
    top, left = plane_filter.TAPS - 1 - window.pad_top, plane_filter.TAPS - 1 - window.pad_left
    doublings = max(0, _NORM_BITS + 1 - max(call.fields["l1"], 1).bit_length())
    apart = (window.stride_h, window.stride_w) == (2, 2) and top % 2 == 0
    rows = plane_filter.PlaneFilter(width, channels, height % 2 == 1, doublings, left % 2 if apart else None)
    step = 1 if apart else 2
    top, left = (top // 2, left // 2) if apart else (top, left)
    pairs = min(-(-height // 2), max(2, _BAND_BYTES // (8 * rows.columns) - 1))
    routines = [rows.routine()]
    fields: dict[str, Any] = {"conv": call.fields, "pairs": pairs, "doublings": doublings, "step": step}
    fields |= {"columns": rows.columns, "top": top, "left": left, "routine": CFunction(routines[0].name)}
    gather = window.output_h * window.output_w * _OUTPUT_CYCLES
    reached = min(window.output_w, rows.columns - left)
    if apart or (window.stride_h, window.stride_w) == (1, 1):
        between = step * window.output_w * channels
        routines.append(plane_gather.gather_routine(reached, between, channels, rows.columns))
        fields["gather"] = CFunction(routines[1].name)
        gather = -(-window.output_h // step) * plane_gather.gather_cycles(reached, channels)
    bands = -(-height // (2 * pairs))
    each = 2 * (rows.cycles(height) + (bands - 1) * 40) + gather + bands * _CHANNELS_CYCLES
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
            routines=tuple(routines),
            scratch_bytes=8 * (pairs + step - 1) * rows.columns,
            cycles=channels // 2 * each + height * width * channels * _PEAK_CYCLES,
            code_bytes=sum(routine.nbytes for routine in routines) + _CODE_BYTES,
            in_order=True,
        )
    ]
