"""Dense layers and logits over filters that lie as they are equal `evaluate` under QEMU."""

from __future__ import annotations

import numpy as np
import pytest
import training_operations as draw
from dsp_cases import M4, cases_of
from layer_cases import retrained_case
from on_target import check_on_target, need_target

from tinypeft.kernels.dsp import dense_trained


@pytest.mark.parametrize("kind", ["layer", "logits"])
def test_trained_filters_equal_evaluate(kind: str) -> None:
    need_target()
    rng = np.random.default_rng(len(kind))
    drawn = [draw.trained_dense(rng, f"op{i}") for i in range(100)]
    drawn += [retrained_case(rng, f"retrained{i}") for i in range(20)]
    cases = [case for made in drawn if kind in made for case in cases_of(*made[kind])]
    assert len(cases) >= 100
    check_on_target(cases)


def test_logits_of_constant_filters_equal_evaluate() -> None:
    need_target()
    rng = np.random.default_rng(0)
    cases = [case for i in range(80) for case in cases_of(*draw.logits(rng, f"op{i}"))]
    assert len(cases) >= 80
    check_on_target(cases)


def test_rows_that_loads_do_not_reach_have_no_kernel() -> None:
    rng = np.random.default_rng(0)
    offered = dense_trained.offers(draw.dense(rng, rows=1, inputs=1368, channels=4), M4)
    assert isinstance(offered, str) and "1368 elements" in offered
    assert not isinstance(dense_trained.offers(draw.dense(rng, rows=1, inputs=1364, channels=4), M4), str)
