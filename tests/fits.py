"""Projects with a store of samples; a fit on the interpreter, on a device that the host drives, on one by itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import small_models
from projects import CONFIGURATIONS, Built, save_model

from tinypeft.boards import load_board
from tinypeft.device import Device
from tinypeft.device.fit import FitProgress, FitResult
from tinypeft.fit import FitConfig, fit
from tinypeft.generate import generate_project, open_project
from tinypeft.learners import DeviceLearner, InterpreterLearner, classes_of
from tinypeft.losses import target_on_device
from tinypeft.memory import MemoryConfig
from tinypeft.state import pack_tensors

ROOM = 16


def with_store(name: str, folder: Path, board: str = "host", samples: int = ROOM) -> Built:
    """The project of projects.CONFIGURATIONS with room for samples, built for `board`."""
    model, adapter, training = CONFIGURATIONS[name]
    (folder / "model").mkdir()
    memory = MemoryConfig(samples=samples)
    report = generate_project(
        save_model(model, folder / "model"),
        load_board(board),
        folder / "project",
        adapter=adapter,
        training=training,
        memory=memory,
    )
    opened = open_project(folder / "project")
    return Built(name, folder / "project", report, opened, small_models.learning_rate(model))


@dataclass(frozen=True)
class Outcome:
    """What a fit decided, what each epoch reported, and the bytes of adapter and training state that it left."""

    result: FitResult
    epochs: list[FitProgress]
    adapter: bytes
    training: bytes


@dataclass(frozen=True)
class Task:
    """A model, the samples x and y that it learns from, and the seed of the adapter that it starts with."""

    built: Built
    x: np.ndarray
    y: np.ndarray | None
    seed: int = 7

    @property
    def classes(self) -> list[int]:
        """As `fit` takes them."""
        return classes_of(self.built.model, self.y, np.arange(len(self.x)))

    def interpreted(self, config: FitConfig) -> Outcome:
        """On the interpreter."""
        model, state, heard = self.built.model, self.built.model.fresh_state(self.seed), list[FitProgress]()
        learner = InterpreterLearner(model, state, self.x, self.y, np.arange(len(self.x)))
        result = fit(learner, self.classes, config, heard.append)
        adapter, training = (pack_tensors(t, state) for t in (model.adapter_weights, model.training_state))
        return Outcome(result, [p for p in heard if p.ended], adapter, training)

    def untrained(self) -> tuple[bytes, bytes]:
        """Adapter and training state before."""
        model, state = self.built.model, self.built.model.fresh_state(self.seed)
        return pack_tensors(model.adapter_weights, state), pack_tensors(model.training_state, state)

    def driven(self, device: Device, config: FitConfig) -> Outcome:
        """On a device, step by step."""
        device.reset_adapter(self.seed)
        heard: list[FitProgress] = []
        learner = DeviceLearner(self.built.model, device, self.x, self.y, np.arange(len(self.x)))
        return self._left(device, fit(learner, self.classes, config, heard.append), heard)

    def alone(self, device: Device, config: FitConfig) -> Outcome:
        """On a device by itself."""
        device.reset_adapter(self.seed)
        for index, sample in enumerate(self.x):
            target = target_on_device(self.built.model.target, None if self.y is None else self.y[index])
            device.store_sample(index, np.ascontiguousarray(sample).tobytes(), target)
        heard: list[FitProgress] = []
        return self._left(device, device.fit(config.request(len(self.x)), heard.append), heard)

    @staticmethod
    def _left(device: Device, result: FitResult, heard: list[FitProgress]) -> Outcome:
        assert device.stats().guards_intact
        return Outcome(result, [p for p in heard if p.ended], device.read("adapter"), device.read("training"))


def task(built: Built, count: int = ROOM, seed: int = 0) -> Task:
    """Random samples; labels in turn, so that there are some of each class."""
    dataset = built.samples(count, seed)
    y = np.arange(count) % min(built.model.classes, 3) if built.model.classes else dataset.y
    return Task(built, dataset.x, y)
