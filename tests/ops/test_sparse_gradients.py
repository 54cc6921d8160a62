"""The integer backward of sparse updates in whole models, alone and beside a LoRA, against gradients in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import whole_gradients
from small_models import MODELS, load, samples

from tinypeft.adapters import AdapterConfig
from tinypeft.compiler import compile_model
from tinypeft.stages.autodiff import TrainingConfig


def _config(adapter: str, density: float, **fields: Any) -> AdapterConfig:
    return AdapterConfig(adapter, r=2, options=(("density", density),), **fields)


CONFIGS = {
    "few": _config("sparse", 0.3),
    "half": _config("sparse", 0.5, modules_to_save=()),
    "whole": _config("sparse", 1.0, modules_to_save=()),
    "beside lora": _config("lora+sparse", 0.4),
}


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("name", MODELS)
def test_gradients_follow_float64(name: str, config: str) -> None:
    """Over six samples together: one channel's sum over positions may cancel to less than mantissas resolve."""
    model = compile_model(name, b"\0" * 32, load(name).graph, CONFIGS[config], TrainingConfig())
    data = samples(load(name), 6, 3)
    state = whole_gradients.trained_state(model, 5)
    actual: dict[str, list[np.ndarray]] = {p.quantized.name: [] for p in model.parameters}
    expected: dict[str, list[np.ndarray]] = {p.quantized.name: [] for p in model.parameters}
    for x, label in zip(data.x, data.y, strict=True):
        sample = x.reshape(model.inference.inputs[0].shape)
        integer, values = whole_gradients.integer_gradients(model, sample, int(label), state)
        reference = whole_gradients.reference_gradients(model, values, int(label))
        for weight in actual:
            expected[weight].append(np.asarray(reference[weight], np.float64).reshape(-1))
            actual[weight].append(np.asarray(integer[weight], np.float64).reshape(-1))
            if not expected[weight][-1].any():
                assert not actual[weight][-1].any(), f"{name}: {weight} gets a gradient where there is none"
    compared = 0
    for weight, parts in actual.items():
        a, e = np.concatenate(parts), np.concatenate(expected[weight])
        if not e.any():
            continue
        cosine, ratio = a @ e / (np.linalg.norm(a) * np.linalg.norm(e)), np.linalg.norm(a) / np.linalg.norm(e)
        assert cosine >= 0.999 and abs(ratio - 1) <= 0.01, f"{name}: {weight}: cosine {cosine}, norm ratio {ratio}"
        compared += 1
    assert compared > len(model.parameters) / 2
