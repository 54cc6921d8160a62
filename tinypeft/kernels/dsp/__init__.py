"""The `dsp` backend: packed weights and generated routines for cores with the DSP extension."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tinypeft.ir import Operation
from tinypeft.kernels.base import Kernel, KernelBackend, Target, register
from tinypeft.kernels.dsp import (
    add,
    backward,
    conv,
    dense,
    dense_trained,
    depthwise,
    lora,
    lora_dense,
    mean,
    mul,
    pool,
    softmax,
    trained_bias,
)

#: operator -> its kernels, or why there are none
_OFFERS: dict[str, Callable[[Operation, Target], list[Kernel] | str]] = {
    "ADD": add.offers,
    "AVERAGE_POOL_2D": pool.offers,
    "CONV_2D": conv.offers,
    "DEPTHWISE_CONV_2D": depthwise.offers,
    "DENSE_LOGITS": dense_trained.offers,
    "FULLY_CONNECTED": dense.offers,
    "MAX_POOL_2D": pool.offers,
    "MEAN": mean.offers,
    "MUL": mul.offers,
    "SOFTMAX": softmax.offers,
    "SUB": add.offers,
    **backward.OFFERS,
}


@register
class Dsp(KernelBackend):
    """Kernels for Armv7E-M and Armv8-M main with DSP: SMLAD, SMMUL and SIMD within a register."""

    name = "dsp"
    cores = ("cortex-m4", "cortex-m7", "cortex-m33")
    headers = (
        "tp_kernels_dsp.h",
        "tp_kernels_dsp_backward.h",
        "tp_kernels_dsp_bias.h",
        "tp_kernels_dsp_dense.h",
        "tp_kernels_dsp_depthwise.h",
        "tp_kernels_dsp_elementwise.h",
        "tp_kernels_dsp_lora.h",
    )

    def offers(self, op: Operation, target: Target) -> Sequence[Kernel] | str:
        found = self._offers(op, target)
        if isinstance(found, str) and op.kind == "FULLY_CONNECTED":  # what cannot be packed
            return dense_trained.offers(op, target)
        return found

    def _offers(self, op: Operation, target: Target) -> list[Kernel] | str:
        if "hidden" in op.inputs and op.kind == "FULLY_CONNECTED":
            return lora_dense.offers(op, target)
        if "hidden" in op.inputs and op.kind != "DENSE_LOGITS":
            return lora.offers(op, target)
        if "trained_bias" in op.attributes and op.kind in ("CONV_2D", "FULLY_CONNECTED"):
            return trained_bias.offers(op, target)
        if op.kind not in _OFFERS:
            return f"no kernel for {op.kind}"
        return _OFFERS[op.kind](op, target)
