"""Plans of the small models, and the samples that they are made from."""

from __future__ import annotations

import functools

import numpy as np
from small_models import load, samples

from tinypeft.adapters import AdapterConfig
from tinypeft.boards import load_board
from tinypeft.data import Dataset
from tinypeft.fitting import DEFAULT_STACK
from tinypeft.interpreter import run_graph
from tinypeft.memory import MemoryConfig
from tinypeft.planning import Budget, Planned, Setting, Survey, plan_adapters
from tinypeft.training import TrainingConfig


@functools.cache
def setting(name: str, training: TrainingConfig | None = None) -> Setting:
    """The model on the board of the tests."""
    board = load_board("stm32f4_discovery")
    return Setting(load(name), board, AdapterConfig(), training or TrainingConfig(), MemoryConfig(), DEFAULT_STACK)


@functools.cache
def shifted(name: str, count: int = 12) -> Dataset:
    """Samples whose class is the one behind that which the model decides for: only the classes have moved."""
    source = load(name)
    x = samples(source, count, 3).x
    graph = source.graph
    outputs = [run_graph(graph, {graph.inputs[0].name: sample}, {})[0].reshape(-1) for sample in x]
    return Dataset(x, np.array([(int(np.argmax(o)) + 1) % o.size for o in outputs], np.int64))


@functools.cache
def survey(name: str) -> Survey:
    """What is known of a small model and its shifted samples."""
    return Survey(setting(name), shifted(name))


@functools.cache
def planned(name: str, budget: Budget) -> Planned:
    """Its plan."""
    return plan_adapters(survey(name), budget)
