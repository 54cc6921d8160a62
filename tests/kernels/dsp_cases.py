"""Kernels of the `dsp` backend for a Cortex-M4, and what they are tested on."""

from __future__ import annotations

import numpy as np
from on_target import Case
from random_operations import random_operation

from tinypeft.ir import Operation
from tinypeft.kernels import BACKENDS, Kernel, Target
from tinypeft.ops.base import Value

M4 = Target("cortex-m4")


def kernels_of(operation: Operation) -> list[Kernel]:
    """What the backend offers, perhaps nothing."""
    offered = BACKENDS["dsp"].offers(operation, M4)
    return [] if isinstance(offered, str) else list(offered)


def cases_of(operation: Operation, values: dict[str, Value]) -> list[Case]:
    """Every kernel of an operation, also with the output over each operand that it may lie over."""
    cases = []
    for kernel in kernels_of(operation):
        places = dict.fromkeys(kernel.in_place, 0)
        if kernel.in_order:
            places |= dict.fromkeys((name for names in operation.op.in_place(operation).values() for name in names), 0)
        overlaps = [*places.items(), *(operation.op.behind(operation).items() if kernel.in_order else ())]
        cases += [Case(operation, kernel, values, overlap) for overlap in (None, *overlaps)]
    return cases


def random_cases(seed: int, count: int, kind: str) -> list[Case]:
    """Those of `count` random operations."""
    rng = np.random.default_rng(seed)
    return [case for _ in range(count) for case in cases_of(*random_operation(rng, kind))]
