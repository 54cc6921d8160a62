"""The harness itself: portable kernels on the target equal `evaluate`, also where the output lies over the input."""

from __future__ import annotations

import numpy as np
import pytest
from on_target import Case, check_on_target, need_target
from random_operations import portable_kernel, random_operation


@pytest.mark.parametrize("board", ["mps2_an386", "mps3_an547"])
def test_portable_kernels_on_the_target(board: str) -> None:
    need_target(board)
    rng = np.random.default_rng(1)
    cases = []
    for kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED") * 4:
        operation, values = random_operation(rng, kind)
        kernel = portable_kernel(operation)
        cases.append(Case(operation, kernel, values))
        for operand, distance in operation.op.behind(operation).items():
            cases.append(Case(operation, kernel, values, (operand, distance)))
    check_on_target(cases, board)
