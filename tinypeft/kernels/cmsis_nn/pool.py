"""AVERAGE_POOL_2D and MAX_POOL_2D by arm_avgpool_s8 and arm_max_pool_s8."""

from __future__ import annotations

import dataclasses

from tinypeft.ir import Operation
from tinypeft.kernels.base import Kernel
from tinypeft.kernels.cmsis_nn import costs
from tinypeft.kernels.cmsis_nn.cores import Extension
from tinypeft.kernels.cmsis_nn.exactness import sees_the_image, window_problem
from tinypeft.ops.base import KernelCall
from tinypeft.ops.window import Window

#: operator -> the library's function, and the stem of our call of it
_FUNCTIONS = {
    "AVERAGE_POOL_2D": ("arm_avgpool_s8", "tp_average_pool_cmsis_nn"),
    "MAX_POOL_2D": ("arm_max_pool_s8", "tp_max_pool_cmsis_nn"),
}


def pool(op: Operation, extension: Extension) -> Kernel | str:
    """The kernel of either."""
    window: Window = op.attributes["window"]
    problem = window_problem(window)
    if problem is not None:
        return problem
    if not sees_the_image(window):
        return "no kernel for windows that lie in the padding"
    form, stem = _FUNCTIONS[op.kind]
    call = op.op.call(op)
    assert call is not None
    average = op.kind == "AVERAGE_POOL_2D"
    scratch = average_pool_scratch(window, extension) if average else 0
    arguments = [*call.arguments, None] if average and not scratch else call.arguments
    kernel = Kernel(
        backend="cmsis_nn",
        form=form,
        call=dataclasses.replace(call, function=f"{stem}_s8", arguments=arguments),
        sources=("cmsis_nn/tp_pool_cmsis_nn.c",),
        scratch_bytes=scratch,
        in_order=True,
        check=KernelCall(f"{stem}_check", call.params, call.fields, [scratch]) if average else None,
    )
    return costs.with_costs(kernel, op, extension)


def average_pool_scratch(window: Window, extension: Extension) -> int:
    """Bytes of scratch of arm_avgpool_s8."""
    return 4 * window.input_c if extension is Extension.DSP else 0
