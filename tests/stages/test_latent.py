"""Training split in front of the first adapter: the same bits, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from small_models import load, samples

from tinypeft.adapters import AdapterConfig
from tinypeft.compiler import CompiledModel, compile_model
from tinypeft.errors import AdapterError
from tinypeft.interpreter import run_graph
from tinypeft.training import TrainingConfig


def compiled(name: str, targets: str) -> CompiledModel:
    adapter = AdapterConfig(r=2, target_modules=targets)
    return compile_model(name, b"", load(name).graph, adapter, TrainingConfig(latents=True))


@pytest.mark.parametrize(("name", "targets"), [("residual", "again|head"), ("plain", "pointwise"), ("plain", "()")])
def test_steps_from_latents_are_the_same(name: str, targets: str) -> None:
    model = compiled(name, targets) if targets != "()" else _classifier_only(name)
    assert model.latent is not None and model.training is not None
    state, other = model.fresh_state(3), model.fresh_state(3)
    data, source = samples(load(name), 4, 1), model.inference.inputs[0]
    for x, label in zip(data.x, data.y, strict=True):
        given: dict[str, Any] = {"label": np.int32(label), "learning_rate": np.float32(0.1)}
        loss = run_graph(model.training, {source.name: x.reshape(source.shape), **given}, state)
        latents = run_graph(model.latent.encode, {source.name: x.reshape(source.shape)}, {})
        named = {t.name: value for t, value in zip(model.latent.latents, latents, strict=True)}
        assert run_graph(model.latent.training, {**named, **given}, other) == loss
    assert state.keys() == other.keys()
    for key, value in state.items():
        np.testing.assert_array_equal(value, other[key], key)


def _classifier_only(name: str) -> CompiledModel:
    adapter = AdapterConfig(target_modules=())
    return compile_model(name, b"", load(name).graph, adapter, TrainingConfig(latents=True))


def test_the_graphs_divide_the_operations() -> None:
    model = compiled("residual", "again|head")
    assert model.latent is not None and model.training is not None
    halves = [*model.latent.encode.operations, *model.latent.training.operations]
    assert {op.name for op in halves} == {op.name for op in model.training.operations}
    assert len(model.latent.latents) >= 1 and model.latent.nbytes == sum(t.nbytes for t in model.latent.latents)


def test_nothing_in_front_of_the_first_adapter_is_refused() -> None:
    with pytest.raises(AdapterError, match="first adapter reads the model's input"):
        compile_model("plain", b"", load("plain").graph, AdapterConfig(), TrainingConfig(latents=True))
