"""FULLY_CONNECTED by arm_fully_connected_wrapper_s8, with multipliers of which its two roundings are one."""

from __future__ import annotations

import numpy as np

from tinypeft.ir import Operation
from tinypeft.kernels.base import Kernel
from tinypeft.kernels.cmsis_nn import costs
from tinypeft.kernels.cmsis_nn.cores import Extension
from tinypeft.kernels.cmsis_nn.exactness import bound_of, once_rounded_multiplier
from tinypeft.ops.activation import output_range
from tinypeft.ops.base import CArray, KernelCall
from tinypeft.ops.fully_connected import dense_window
from tinypeft.ops.weighted import folded_bias, multipliers, reads_directly


def fully_connected(op: Operation, extension: Extension) -> Kernel | str:
    """The kernel, where each of its channels has such a multiplier."""
    window = dense_window(op)
    if "hidden" in op.inputs:
        return "no kernel with a LoRA in its accumulators"
    if "multiplier" in op.inputs or not reads_directly(window, op.inputs["filter"]):
        return "no kernel for a layer that is trained"
    low, high = output_range(op)
    zero, bound = op.output.zero_point, bound_of(op)
    found = [
        once_rounded_multiplier(int(multiplier), int(shift), bound, low - zero, high - zero)
        for multiplier, shift in zip(*multipliers(op), strict=True)
    ]
    exact = [pair for pair in found if pair is not None]
    if len(exact) < len(found):
        return "no kernel that rounds once, as LiteRT does here, for this layer's scales"
    multiplier, shift = exact[0]
    fields = {
        "positions": window.input_h,
        "input_c": window.input_c,
        "output_c": window.output_c,
        "output_offset": zero,
        "activation_min": low,
        "activation_max": high,
        "multiplier": multiplier,
        "shift": shift,
    }
    kind, tables = "", []
    if len(set(exact)) > 1:
        kind, columns = "_per_channel", np.array(exact, np.int32).T
        tables = [CArray("int32_t", table, name) for table, name in zip(columns, ("multiplier", "shift"), strict=True)]
    arguments = [op.inputs["input"], op.inputs["filter"], folded_bias(op), *tables, op.output]
    function = f"tp_fully_connected{kind}_cmsis_nn_s8"
    kernel = Kernel(
        backend="cmsis_nn",
        form=f"arm_fully_connected{kind}_s8",
        call=KernelCall(function, "tp_fully_connected_cmsis_nn_params", fields, arguments),
        sources=("cmsis_nn/tp_fully_connected_cmsis_nn.c", "cmsis_nn/tp_rounding_cmsis_nn.c"),
        in_order=True,
        check=KernelCall("tp_rounding_cmsis_nn_check", "", {}),
    )
    return costs.with_costs(kernel, op, extension)
