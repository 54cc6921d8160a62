"""ADD, MUL and SOFTMAX by arm_elementwise_add_s8, arm_elementwise_mul_s8 and arm_softmax_s8."""

from __future__ import annotations

import dataclasses

from tinypeft.ir import Operation
from tinypeft.kernels.base import Kernel
from tinypeft.kernels.cmsis_nn import costs
from tinypeft.kernels.cmsis_nn.cores import Extension
from tinypeft.ops.base import KernelCall


def binary(op: Operation, extension: Extension) -> Kernel | str:
    """The kernel of ADD or MUL, for operands of one shape; their scales are within int32 wherever they are allowed."""
    call = op.op.call(op)
    assert call is not None
    if any(tensor.size != op.output.size for tensor in op.inputs.values()):
        return "no kernel for operands that are broadcast"
    stem = op.kind.lower()
    kernel = Kernel(
        backend="cmsis_nn",
        form=f"arm_elementwise_{stem}_s8",
        call=dataclasses.replace(call, function=f"tp_{stem}_cmsis_nn_s8"),
        sources=("cmsis_nn/tp_binary_cmsis_nn.c", "cmsis_nn/tp_rounding_cmsis_nn.c"),
        in_order=True,
        check=KernelCall("tp_rounding_cmsis_nn_check", "", {}),
    )
    return costs.with_costs(kernel, op, extension)


def softmax(op: Operation, extension: Extension) -> Kernel | str:
    """The kernel of SOFTMAX."""
    call = op.op.call(op)
    assert call is not None
    if "input_shift" in op.inputs:
        return "no kernel for an input whose scale is trained"
    if call.fields["input_left_shift"] > 30:
        return "no kernel for an input of so large a scale"
    arguments = [op.inputs["input"], op.output]
    kernel = Kernel(
        backend="cmsis_nn",
        form="arm_softmax_s8",
        call=KernelCall("tp_softmax_cmsis_nn_s8", call.params, call.fields, arguments),
        sources=("cmsis_nn/tp_softmax_cmsis_nn.c",),
        in_order=True,
    )
    return costs.with_costs(kernel, op, extension)
