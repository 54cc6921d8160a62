"""CONV_2D and DEPTHWISE_CONV_2D by the library's wrappers, which choose a function by shapes; so does this."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinypeft.ir import Operation, Tensor
from tinypeft.kernels.base import Kernel
from tinypeft.kernels.cmsis_nn import costs
from tinypeft.kernels.cmsis_nn.cores import Extension
from tinypeft.kernels.cmsis_nn.exactness import (
    MAX_TAPS,
    bound_of,
    one_row_exact,
    one_row_parts,
    requantization_problem,
    sees_the_image,
    window_problem,
)
from tinypeft.ops.base import CArray, KernelCall
from tinypeft.ops.conv_2d import conv_fields
from tinypeft.ops.depthwise_conv_2d import by_planes
from tinypeft.ops.weighted import folded_bias, group_fields, multipliers, one_tap_inside, reads_directly
from tinypeft.ops.window import Window

#: Channels that arm_depthwise_conv_s8_opt gathers at a time with MVE.
_CHANNELS_MVE = 124


def convolution(op: Operation, extension: Extension) -> Kernel | str:
    """arm_convolve_wrapper_s8."""
    window: Window = op.attributes["window"]
    filter_c = op.inputs["filter"].shape[-1]
    problem = _layer_problem(op) or _bias_problem(op, window) or _convolve_problem(window, filter_c, extension)
    if problem is not None:
        return problem
    fields = conv_fields(op) | group_fields(window, op.inputs["filter"])
    bias = _bias(op)
    if reads_directly(window, op.inputs["filter"]):  # its bias holds what the input's zero point adds
        fields |= {"direct": 1, "input_offset": 0}
        bias = folded_bias(op)
    function = convolve_function(window, filter_c, extension)
    scratch = convolve_scratch(window, filter_c, extension)
    in_order = _in_order(window, filter_c, function, extension)
    return _kernel(op, extension, "tp_conv_cmsis_nn", function, fields, bias, scratch, in_order)


def _bias_problem(op: Operation, window: Window) -> str | None:
    """A trained or merged bias holds what the input's zero point adds, which the library would add once more."""
    filters = op.inputs["filter"]
    if ("trained_bias" in op.attributes or filters.data is None) and not reads_directly(window, filters):
        return "no kernel for a window whose bias or filter is trained"
    return None


def depthwise_convolution(op: Operation, extension: Extension) -> Kernel | str:
    """arm_depthwise_conv_wrapper_s8."""
    window: Window = op.attributes["window"]
    problem = _layer_problem(op) or _depthwise_problem(window, extension)
    if problem is not None:
        return problem
    function = depthwise_function(window, extension)
    scratch = depthwise_scratch(window, extension)
    in_order = _in_order(window, 1, function, extension) and not by_planes(window)
    fields = conv_fields(op)
    return _kernel(op, extension, "tp_depthwise_conv_cmsis_nn", function, fields, _bias(op), scratch, in_order)


def convolve_function(window: Window, filter_c: int, extension: Extension) -> str:
    """The function that arm_convolve_wrapper_s8 calls."""
    alone = window.input_c == filter_c and (window.dilation_w, window.kernel_h) == (1, 1)
    padded = window.pad_top or window.pad_left
    if alone and window.kernel_w == 1 and window.dilation_h == 1 and not padded:
        fast = (window.stride_h, window.stride_w) == (1, 1)
        return "arm_convolve_1x1_s8_fast" if fast else "arm_convolve_1x1_s8"
    one_row = alone and window.input_h == 1 and window.stride_w * window.input_c % 4 == 0
    if one_row and extension is Extension.MVE:
        return "arm_convolve_1_x_n_s8"
    return "arm_convolve_s8"


def convolve_scratch(window: Window, filter_c: int, extension: Extension) -> int:
    """Bytes of scratch of arm_convolve_wrapper_s8."""
    function = convolve_function(window, filter_c, extension)
    if function.startswith("arm_convolve_1x1"):
        return 0
    parts = one_row_parts(window)
    if function == "arm_convolve_1_x_n_s8" and parts is not None:
        taps = window.kernel_w * window.input_c
        return max(taps + window.pad_left * window.input_c, taps + (parts[3] - 1) * window.input_c)
    taps = window.kernel_h * window.kernel_w * window.input_c
    return 4 * -(-taps // 16) * 16 if extension is Extension.MVE else 4 * -(-taps // 4) * 4


def depthwise_function(window: Window, extension: Extension) -> str:
    """The function that arm_depthwise_conv_wrapper_s8 calls."""
    if _as_convolution(window, extension):
        return convolve_function(window, 1, extension)
    if window.input_c != window.output_c or (window.dilation_h, window.dilation_w) != (1, 1):
        return "arm_depthwise_conv_s8"
    small = (window.kernel_h, window.kernel_w) == (3, 3) and window.pad_top <= 1 and window.pad_left <= 1
    return "arm_depthwise_conv_3x3_s8" if small and extension is not Extension.MVE else "arm_depthwise_conv_s8_opt"


def depthwise_scratch(window: Window, extension: Extension) -> int:
    """Bytes of scratch of arm_depthwise_conv_wrapper_s8."""
    taps = window.kernel_h * window.kernel_w
    if _as_convolution(window, extension):
        return convolve_scratch(window, 1, extension) + taps * window.output_c
    if depthwise_function(window, extension) != "arm_depthwise_conv_s8_opt":
        return 0
    return {Extension.NONE: 0, Extension.DSP: 2 * taps * window.input_c, Extension.MVE: 4 * taps * _CHANNELS_MVE}[
        extension
    ]


def _as_convolution(window: Window, extension: Extension) -> bool:
    """Whether the wrapper transposes the filters of a single input channel, for a convolution."""
    return extension is Extension.MVE and window.input_c == 1 and window.output_c > 1


def _in_order(window: Window, filter_c: int, function: str, extension: Extension) -> bool:
    """Whether it computes position after position, of one or a few of which it reads all before it writes there.

    Convolutions that read the input as it lies, groups, and blocks of channels are outer loops.
    """
    if function.startswith("arm_convolve"):
        return function == "arm_convolve_s8" and window.input_c == filter_c
    blocks = function == "arm_depthwise_conv_s8_opt" and extension is Extension.MVE
    return not blocks or window.output_c <= _CHANNELS_MVE


def _layer_problem(op: Operation) -> str | None:
    if "hidden" in op.inputs:
        return "no kernel with a LoRA in its accumulators"
    if "multiplier" in op.inputs:
        return "no kernel for multipliers that are trained"
    taps = op.attributes["window"].kernel_h * op.attributes["window"].kernel_w * op.inputs["filter"].shape[-1]
    if taps > MAX_TAPS:
        return f"no kernel for filters of {taps} taps, the most is {MAX_TAPS}"
    return requantization_problem(multipliers(op)[1], bound_of(op)) or window_problem(op.attributes["window"])


def _convolve_problem(window: Window, filter_c: int, extension: Extension) -> str | None:
    function = convolve_function(window, filter_c, extension)
    same = (window.input_h, window.input_w) == (window.output_h, window.output_w)
    if function == "arm_convolve_1x1_s8_fast" and not same:
        return "no kernel for a 1x1 window that crops or pads"
    if function == "arm_convolve_1x1_s8" and not one_tap_inside(window):
        return "no kernel for a 1x1 window that leaves the image"
    if function == "arm_convolve_1_x_n_s8" and not one_row_exact(window):
        return "no kernel for the padding of this one row"
    return None


def _depthwise_problem(window: Window, extension: Extension) -> str | None:
    if _as_convolution(window, extension):
        return _convolve_problem(window, 1, extension)
    if not sees_the_image(window):
        return "no kernel for windows that lie in the padding"
    beyond = int(window.columns()[:, 1:2].max(initial=0)) >= window.input_w
    if beyond and depthwise_function(window, extension) == "arm_depthwise_conv_3x3_s8":
        return "no kernel for a 3x3 window with two columns of padding at the right"
    return None


def _bias(op: Operation) -> Tensor | CArray:
    """The bias, zeros where there is none: the library adds offsets to its address."""
    return op.inputs.get("bias") or CArray("int32_t", np.zeros(op.output.shape[-1], np.int32), "bias")


def _kernel(
    op: Operation,
    extension: Extension,
    stem: str,
    function: str,
    fields: dict[str, Any],
    bias: Tensor | CArray,
    scratch: int,
    in_order: bool,
) -> Kernel:
    multiplier, shift = (table.astype(np.int32) for table in multipliers(op))
    tables = CArray("int32_t", multiplier, "multiplier"), CArray("int32_t", shift, "shift")
    arguments = [op.inputs["input"], op.inputs["filter"], bias, *tables, op.output]
    call = KernelCall(f"{stem}_s8", "tp_conv_params", fields, arguments if scratch else [*arguments, None])
    return costs.with_costs(
        Kernel(
            backend="cmsis_nn",
            form=function,
            call=call,
            sources=(f"cmsis_nn/{stem}.c", "cmsis_nn/tp_rounding_cmsis_nn.c"),
            scratch_bytes=scratch,
            in_order=in_order,
            check=KernelCall(f"{stem}_check", "tp_conv_params", fields, [scratch]),
        ),
        op,
        extension,
    )
