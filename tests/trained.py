"""Small models with an adapter that the interpreter has trained: `trained("plain")` is (model, adapter, samples)."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import small_models
from projects import CONFIGURATIONS, TRAINABLE

from tinypeft.adapter_state import Adapter
from tinypeft.adapters import ADAPTERS, AdapterConfig
from tinypeft.compiler import CompiledModel, compile_model
from tinypeft.data import Dataset
from tinypeft.frontend import LoadedModel, load_tflite
from tinypeft.interpreter import run_graph
from tinypeft.losses import target_argument
from tinypeft.state import pack_adapter
from tinypeft.training import TrainingConfig

#: a LoRA that starts with large values
_SLOWER = {"lora_patterns": 64}
#: configurations of every kind, quick ones
QUICK = ("plain", "whole", "more_classes", "ia3", "bitfit", "channels", "bottleneck", "input_offset", "sparse_forms")
MERGEABLE = [name for name in TRAINABLE if not any(ADAPTERS[kind].unmerged for kind in CONFIGURATIONS[name][1].kinds)]


@dataclass(frozen=True)
class TrainedModel:
    """A compiled model, its base, an adapter of it and samples."""

    model: CompiledModel
    source: LoadedModel
    adapter: Adapter
    samples: Dataset


def compiled(
    name: str, adapter: AdapterConfig, training: TrainingConfig | None = None, slower: int = 4
) -> TrainedModel:
    """A small model with an adapter of `adapter` after a dozen steps, at its rate divided by `slower`."""
    source = load_tflite(name, small_models.model_bytes(name), {})
    training = training or TrainingConfig()
    model = compile_model(source.name, source.fingerprint, source.graph, adapter, training)
    samples, state = small_models.samples(source, 12), model.fresh_state(3)
    assert model.training is not None and samples.y is not None
    rate, rng = np.float32(small_models.learning_rate(name) / slower), np.random.default_rng(0)
    for number, (x, label) in enumerate(zip(samples.x, samples.y, strict=True), 1):
        vector = model.target is not None and model.target.shape
        y = rng.uniform(0, 1, model.target.size) if vector else label % model.output.shape[-1]
        arguments = {model.training.inputs[0].name: x, **target_argument(model.target, y), "learning_rate": rate}
        run_graph(model.training, arguments, state)
        if model.update is not None and number % training.batch_size == 0:
            run_graph(model.update, {"learning_rate": rate, "count": np.int32(training.batch_size)}, state)
    largest = max(np.abs(state[parameter.master.name]).max() for parameter in model.parameters)
    assert largest < 100, f"training diverged, to {largest}: merged weights of no meaning would be compared"
    return TrainedModel(model, source, Adapter(pack_adapter(model, state), state), samples)


@functools.cache
def trained(configuration: str) -> TrainedModel:
    """The same of CONFIGURATIONS[configuration]."""
    return compiled(*CONFIGURATIONS[configuration], slower=_SLOWER.get(configuration, 4))


def outputs(graph, state: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """(N, ...) of the interpreter."""
    return np.concatenate([run_graph(graph, {graph.inputs[0].name: sample}, dict(state))[0] for sample in x])
