"""The backend `mve` and the table of its kernels, which the other modules of this folder fill."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tinypeft.ir import Operation
from tinypeft.kernels.base import Kernel, KernelBackend, Target, register

#: What makes the kernels of an operation, or says why there are none.
Offer = Callable[[Operation], Sequence[Kernel] | str]

#: operator -> what offers its kernels
OFFERS: dict[str, Offer] = {}


def offers(kind: str) -> Callable[[Offer], Offer]:
    """Decorator: the function offers the kernels of the operator `kind`; a second one is a KeyError."""

    def add(function: Offer) -> Offer:
        if kind in OFFERS:
            raise KeyError(f"the mve kernels of {kind} are registered twice")
        OFFERS[kind] = function
        return function

    return add


@register
class MveBackend(KernelBackend):
    """Kernels in C with Helium's integer instructions."""

    name = "mve"
    cores = ("cortex-m55",)
    headers = ("tp_kernels_mve.h",)

    def offers(self, op: Operation, target: Target) -> Sequence[Kernel] | str:
        """Its kernels for `op`, or why it has none."""
        if target.core not in self.cores:
            return f"no kernels for {target.core}"
        offer = OFFERS.get(op.kind)
        return "no kernel for this operator" if offer is None else offer(op)
