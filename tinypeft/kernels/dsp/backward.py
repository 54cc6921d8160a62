"""The operators of the backward pass that the `dsp` backend has kernels for, and LORA_DOWN."""

from __future__ import annotations

from collections.abc import Callable

from tinypeft.ir import Operation
from tinypeft.kernels.base import Target
from tinypeft.kernels.dsp.clamp_backward import clamp_mask, requantize_backward
from tinypeft.kernels.dsp.conv_backward import conv_backward_input
from tinypeft.kernels.dsp.depthwise_backward import depthwise_backward_input
from tinypeft.kernels.dsp.gradients import Offer
from tinypeft.kernels.dsp.lora_backward_hidden import lora_backward_hidden
from tinypeft.kernels.dsp.lora_down import lora_down
from tinypeft.kernels.dsp.update_rows import update_rows

#: operator -> its kernels, or why there are none
OFFERS: dict[str, Callable[[Operation, Target], Offer]] = {
    "CLAMP_MASK": clamp_mask,
    "CONV_2D_BACKWARD_INPUT": conv_backward_input,
    "DEPTHWISE_CONV_2D_BACKWARD_INPUT": depthwise_backward_input,
    "LORA_BACKWARD_HIDDEN": lora_backward_hidden,
    "LORA_DOWN": lora_down,
    "REQUANTIZE_BACKWARD": requantize_backward,
    "UPDATE_ROWS": update_rows,
}
