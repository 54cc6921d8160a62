"""UPDATE_ROWS of the `dsp` backend: gradients of a LoRA's matrices."""

from __future__ import annotations

from dataclasses import replace

from tinypeft.ir import Operation
from tinypeft.kernels.base import Kernel, Target
from tinypeft.kernels.dsp.gradients import Offer, gradients_of_16_bits, padded_pitch, padded_rows
from tinypeft.ops.base import CFunction, CStruct
from tinypeft.ops.window import Window

#: the most that a padded image and its mantissas may take
_IMAGE_BYTES = 4096


def update_rows(op: Operation, target: Target) -> Offer:
    """UPDATE_ROWS of a LoRA's matrices: the sums over positions of a row, four at a time."""
    producer: Operation = op.attributes["gradient"]
    call = op.op.call(op)
    assert call is not None
    portable = call.fields["gradient"].name
    if not gradients_of_16_bits(producer):
        return "no kernel for gradients of 8 bits"
    d_output = producer.inputs["d_output"]
    positions = d_output.size // d_output.shape[-1]
    size = op.inputs["master"].size
    gradient, fields, more = "", call.fields, 0
    if portable == "tp_lora_gradient_b_s32" and op.inputs["master"].shape[-1] % 4 == 0:
        gradient, cycles = "tp_lora_gradient_b_dsp_s32", 4 * positions * size
    elif portable == "tp_filter_gradient_s32" and _whole_pointwise(producer):
        gradient, cycles = "tp_pointwise_gradient_dsp_s32", 15 * positions * size // 4
    elif portable == "tp_filter_gradient_s32" and (window := _window(producer)) is not None:
        gradient, cycles, pitch = "tp_window_gradient_dsp_s32", 7 * positions * size, padded_pitch(window)
        more = padded_rows(window) * pitch + 4 * window.output_h * (-(-window.output_w // 2))
        held: CStruct = fields["gradient_params"]
        padded = CStruct("tp_window_gradient_dsp_params", {"filter": held.fields, "pitch": pitch}, held.name)
        fields = fields | {"gradient_params": padded}
    if not gradient or more > _IMAGE_BYTES:
        return f"no kernel in the place of {portable}"
    return [
        Kernel(
            backend="dsp",
            form="four sums",
            call=replace(call, fields=fields | {"gradient": CFunction(gradient)}),
            sources=(*op.op.sources(op), "dsp/tp_lora_gradients_dsp.c", "dsp/tp_padded_row_dsp.c"),
            scratch_bytes=op.op.scratch_bytes(op) + more,
            cycles=cycles + 40 * size,
            code_bytes=400,
        )
    ]


def _window(producer: Operation) -> Window | None:
    """The window of a filter's gradient, where it has no dilated columns and reads all channels."""
    window: Window = producer.attributes["window"]
    return window if window.dilation_w == 1 and "first_channel" not in producer.attributes else None


def _whole_pointwise(producer: Operation) -> bool:
    """Whether a filter's gradient is that of a 1x1 window, of stride 1, over all channels, a multiple of 4."""
    window: Window = producer.attributes["window"]
    same = (window.input_h, window.input_w) == (window.output_h, window.output_w)
    one = window.kernel_h == window.kernel_w == window.stride_h == window.stride_w == 1
    inside = not (window.pad_top or window.pad_left)
    return same and one and inside and window.input_c % 4 == 0 and "first_channel" not in producer.attributes
