"""Kernels that call Arm's CMSIS-NN, where that gives the portable kernels' bits: proved from shapes and weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tinypeft.ir import Operation
from tinypeft.kernels.base import Kernel, KernelBackend, Target, register
from tinypeft.kernels.cmsis_nn.convolution import convolution, depthwise_convolution
from tinypeft.kernels.cmsis_nn.cores import EXTENSIONS, Extension
from tinypeft.kernels.cmsis_nn.dense import fully_connected
from tinypeft.kernels.cmsis_nn.elementwise import binary, softmax
from tinypeft.kernels.cmsis_nn.library import Library, find_library
from tinypeft.kernels.cmsis_nn.pool import pool

_OPERATORS: dict[str, Callable[[Operation, Extension], Kernel | str]] = {
    "CONV_2D": convolution,
    "DEPTHWISE_CONV_2D": depthwise_convolution,
    "FULLY_CONNECTED": fully_connected,
    "ADD": binary,
    "MUL": binary,
    "AVERAGE_POOL_2D": pool,
    "MAX_POOL_2D": pool,
    "SOFTMAX": softmax,
}


@register
class CmsisNn(KernelBackend):
    """Arm's library, at the path that the user gives."""

    name = "cmsis_nn"
    cores = tuple(EXTENSIONS)
    headers = ("tp_kernels_cmsis_nn.h",)
    needs_library = True

    def offers(self, op: Operation, target: Target) -> Sequence[Kernel] | str:
        make = _OPERATORS.get(op.kind)
        if make is None:
            return f"no kernel for {op.kind}"
        kernel = make(op, EXTENSIONS[target.core])
        return kernel if isinstance(kernel, str) else (kernel,)


__all__ = ["CmsisNn", "Library", "find_library"]
