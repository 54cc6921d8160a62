"""Convolutions and dense layers of the dsp backend with a LoRA equal `evaluate` under QEMU, also over their input."""

from __future__ import annotations

import numpy as np
import pytest
import training_operations as draw
from dsp_cases import cases_of
from on_target import check_on_target, need_target


@pytest.mark.parametrize("seed", range(3))
def test_layers_with_a_lora_equal_evaluate(seed: int) -> None:
    need_target()
    rng = np.random.default_rng(seed)
    cases = [case for i in range(120) for case in cases_of(*draw.lora_layer(rng, f"op{i}")["layer"])]
    assert len(cases) >= 40
    check_on_target(cases)


@pytest.mark.parametrize("kind", ["layer", "LORA_DOWN"])
def test_any_integers_of_an_adapter_equal_evaluate(kind: str) -> None:
    need_target()
    rng = np.random.default_rng(len(kind))
    cases = [case for i in range(300) for case in cases_of(*draw.any_adapter(rng, f"op{i}")[kind])]
    assert len(cases) >= 50
    check_on_target(cases)


@pytest.mark.parametrize("kind", ["layer", "LORA_DOWN"])
def test_dense_layers_with_a_lora_equal_evaluate(kind: str) -> None:
    need_target()
    rng = np.random.default_rng(len(kind))
    cases = [case for i in range(120) for case in cases_of(*draw.dense_with_lora(rng, f"op{i}")[kind])]
    cases += [case for i in range(120) for case in cases_of(*draw.any_dense_adapter(rng, f"any{i}")[kind])]
    assert len(cases) >= 100
    check_on_target(cases)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_many_adapters(seed: int) -> None:
    need_target()
    rng = np.random.default_rng(100 + seed)
    drawn = [draw_one(rng, f"op{i}") for i in range(250) for draw_one in (draw.lora_layer, draw.any_adapter)]
    check_on_target([case for each in drawn for kind in each for case in cases_of(*each[kind])])
