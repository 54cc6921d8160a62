"""What the backward kernels of the `dsp` backend ask of gradients, and the images that windows of LoRA read."""

from __future__ import annotations

from tinypeft.ir import Operation
from tinypeft.kernels.base import Kernel
from tinypeft.ops.window import Window

Offer = list[Kernel] | str


def gradients_of_16_bits(op: Operation) -> bool:
    """Whether no gradient that `op` reads or writes has mantissas of 8 bits."""
    return all(t.dtype != "bfp8" for t in (*op.inputs.values(), *op.outputs.values()))


def padded_pitch(window: Window) -> int:
    """Elements of a padded row, a multiple of 4; what four inputs of an odd position more may reach lies within."""
    read = (window.output_w + window.output_w % 2 - 1) * window.stride_w + window.kernel_w
    return -(-read * window.input_c // 4) * 4 + 4


def padded_rows(window: Window) -> int:
    """Rows of the padded image that positions span."""
    return (window.output_h - 1) * window.stride_h + (window.kernel_h - 1) * window.dilation_h + 1
