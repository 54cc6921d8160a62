"""Gradients of a LoRA's and of other filters' masters for Helium, which UPDATE_ROWS calls, and of the hidden value."""

from __future__ import annotations

from collections.abc import Sequence

from tinypeft.ir import Operation
from tinypeft.kernels.base import Kernel
from tinypeft.kernels.mve.backend import offers
from tinypeft.kernels.mve.backward import pointwise
from tinypeft.ops import CFunction, KernelCall

#: Whose mantissas of eight positions lie within an offset of 16 bits.
_CHANNELS = 65535 // 7
_SOURCE = "mve/tp_row_gradients_mve.c"


@offers("UPDATE_ROWS")
def update(op: Operation) -> Sequence[Kernel] | str:
    """The portable update with another function for the gradient's rows."""
    gradient: Operation = op.attributes["gradient"]
    if op.inputs["d_output"].dtype != "bfp16":
        return "no kernel for gradients of 8 bits"
    if gradient.kind == "LORA_BACKWARD_B":
        if len(op.inputs["master"].shape) > 1 and op.inputs["master"].shape[0] > _CHANNELS:
            return f"no kernel for more than {_CHANNELS} channels"
        function, macs = "tp_lora_gradient_b_mve_s32", 1.2
    elif gradient.kind == "CONV_2D_BACKWARD_FILTER":
        if "first_channel" in gradient.attributes or not pointwise(gradient.attributes["window"]):
            return "no kernel for the gradient of a filter but of a window of 1x1"
        function, macs = "tp_filter_gradient_mve_s32", 1.0
    else:
        return "no kernel for this gradient"
    portable = op.op.call(op)
    assert portable is not None
    fields = portable.fields | {"gradient": CFunction(function)}
    call = KernelCall(portable.function, portable.params, fields, portable.arguments)
    cycles = int(gradient.op.macs(gradient) * macs) + 30 * op.inputs["master"].size + 100
    return [
        Kernel(
            "mve",
            "16 channels" if function.startswith("tp_filter") else "8 positions",
            call,
            (*op.op.sources(op), _SOURCE),
            scratch_bytes=op.op.scratch_bytes(op),
            cycles=cycles,
            code_bytes=700,
            in_order=True,
        )
    ]


@offers("LORA_BACKWARD_HIDDEN")
def hidden(op: Operation) -> Sequence[Kernel] | str:
    """One kernel."""
    if op.output.dtype != "bfp16":
        return "no kernel for gradients of 8 bits"
    portable = op.op.call(op)
    assert portable is not None
    rank, channels = portable.fields["rank"], portable.fields["output_c"]
    call = KernelCall("tp_lora_backward_hidden_mve_s16", portable.params, portable.fields, portable.arguments)
    each = -(-rank // 2) * (-(-channels // 8) * 18 + 40)
    return [
        Kernel(
            "mve",
            "8 channels",
            call,
            (_SOURCE,),
            scratch_bytes=op.op.scratch_bytes(op),
            cycles=portable.fields["positions"] * each + 20 * channels,
            code_bytes=400,
        )
    ]
