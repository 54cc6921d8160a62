"""Backward kernels of the dsp backend under QEMU equal `evaluate`, in place where operators allow it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import training_operations as draw
from dsp_cases import cases_of
from layer_cases import Case as Drawn
from on_target import check_on_target, need_target

from tinypeft.kernels.dsp import backward

DRAWN: dict[str, Callable[[np.random.Generator, str], Drawn]] = {
    "CLAMP_MASK": draw.clamp_mask,
    "CONV_2D_BACKWARD_INPUT": draw.conv_backward_input,
    "DEPTHWISE_CONV_2D_BACKWARD_INPUT": draw.depthwise_backward_input,
    "LORA_BACKWARD_HIDDEN": draw.lora_backward_hidden,
    "LORA_DOWN": draw.lora_down,
    "REQUANTIZE_BACKWARD": draw.requantize_backward,
    "UPDATE_ROWS": draw.update_rows,
}
#: operations that are drawn, where 60 would not have every case
COUNTS = {"UPDATE_ROWS": 240}


def test_every_kernel_is_drawn() -> None:
    assert set(DRAWN) == set(backward.OFFERS)


@pytest.mark.parametrize("kind", DRAWN)
def test_kernels_equal_evaluate(kind: str) -> None:
    need_target()
    rng = np.random.default_rng(len(kind))
    cases = [case for i in range(COUNTS.get(kind, 60)) for case in cases_of(*DRAWN[kind](rng, f"op{i}"))]
    assert len(cases) >= 30
    check_on_target(cases)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", DRAWN)
def test_many_kernels_equal_evaluate(kind: str, seed: int) -> None:
    need_target()
    rng = np.random.default_rng(1000 + seed)
    check_on_target([case for i in range(90) for case in cases_of(*DRAWN[kind](rng, f"op{i}"))])
