"""Projects that keep adapters, and packages for them: `kept("plain")` in a test."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import projects
import pytest
import small_models

from tinypeft.boards import load_board
from tinypeft.compiler import CompiledModel
from tinypeft.data import Dataset
from tinypeft.device import Device
from tinypeft.device.protocol import Command
from tinypeft.emulators import find_emulator
from tinypeft.generate import Project, Report, build_for_emulator, generate_project, open_project
from tinypeft.interpreter import run_graph
from tinypeft.memory import MemoryConfig
from tinypeft.package.format import Identity
from tinypeft.project import build_twin
from tinypeft.state import pack_adapter

ADAPTERS, RESIDENT = 4, 2
OS_GROUP, OS_RESET, WRITE = 0, Command.UPDATE, 2  # the number 5, which is MCUmgr's reset


@dataclass(frozen=True)
class Kept:
    """A built project that keeps ADAPTERS adapters, RESIDENT of them in RAM."""

    name: str
    project: Project
    report: Report

    @property
    def model(self) -> CompiledModel:
        return self.project.model

    @contextlib.contextmanager
    def running(self, on: str, count: bool = False) -> Iterator[Device]:
        """A freshly started device."""
        folder, board = self.project.directory, self.project.board
        emulator = find_emulator(on)
        if emulator.missing():
            pytest.skip(str(emulator.missing()))
        if on.startswith("host"):
            build_twin(folder)
        else:
            folder, board = build_for_emulator(folder, board, emulator.name)
        with emulator.open(folder, board, count_instructions=count) as device:
            yield device

    def samples(self, count: int) -> Dataset:
        return small_models.samples(self.project.source, count)

    def trained(self, seed: int, steps: int = 6) -> dict[str, np.ndarray]:
        """The state of an adapter that learnt by the interpreter."""
        model, samples = self.model, self.samples(steps)
        assert model.training is not None and samples.y is not None
        state, rate = model.fresh_state(seed), np.float32(small_models.learning_rate(self.name) / 2)
        for x, y in zip(samples.x, np.roll(samples.y, seed), strict=True):
            label = np.int32(y % model.classes)
            run_graph(model.training, {model.training.inputs[0].name: x, "label": label, "learning_rate": rate}, state)
            if model.update is not None:
                run_graph(model.update, {"learning_rate": rate, "count": np.int32(1)}, state)
        return state

    def package(self, name: str, seed: int, version: int = 1, counter: int = 0) -> bytes:
        """The package of `trained(seed)` under an identity."""
        return pack_adapter(self.model, self.trained(seed), Identity(name, version, counter))

    def output(self, state: dict[str, np.ndarray], x: np.ndarray) -> bytes:
        """The interpreter's output."""
        graph = self.model.inference
        return run_graph(graph, {graph.inputs[0].name: x}, dict(state))[0].tobytes()


def generate(name: str, folder: Path, board: str = "mps2_an386", **memory: int) -> Kept:
    """The project of a configuration of projects.py."""
    model, adapter, training = projects.CONFIGURATIONS[name]
    room = replace(MemoryConfig(adapters=ADAPTERS, resident=RESIDENT), **memory)
    path = projects.save_model(model, folder)
    target = folder / "project"
    report = generate_project(path, load_board(board), target, adapter=adapter, training=training, memory=room)
    return Kept(model, open_project(target), report)


def restart(device: Device) -> None:
    """A warm reset over the console: RAM is as after one, flash stays."""
    device._link.request(OS_RESET, {}, "reset", group=OS_GROUP, op=WRITE)
    device.wait_ready(10)


def data(x: np.ndarray) -> bytes:
    return np.ascontiguousarray(x).tobytes()


Build = Callable[..., Kept]
