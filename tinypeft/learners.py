"""What learns from samples: the interpreter, or a device that the host drives; see `fit.Learner`."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinypeft.arithmetic import MASTER_LIMIT
from tinypeft.compiler import CompiledModel
from tinypeft.device import Device, Run, Runner
from tinypeft.interpreter import run_graph
from tinypeft.ir import Purpose
from tinypeft.losses import target_argument, target_on_device

ONE_Q16 = 65536


def classes_of(model: CompiledModel, y: np.ndarray | None, chosen: np.ndarray) -> list[int]:
    """The class of each chosen sample; all 0 where training takes no label."""
    return [int(y[i]) for i in chosen] if model.classes and y is not None else [0] * len(chosen)


class InterpreterLearner:
    """The interpreter on the samples `chosen` of x (N, ...) and y; `state` is changed in place."""

    def __init__(
        self,
        model: CompiledModel,
        state: dict[str, np.ndarray],
        x: np.ndarray,
        y: np.ndarray | None,
        chosen: np.ndarray,
    ):
        self.model, self.state, self.x, self.y, self.chosen = model, state, x, y, chosen
        self.batch_size = model.training_config.batch_size
        self._pending, self._before = 0, dict(state)

    def begin_epoch(self) -> None:
        return

    def begin_batch(self) -> None:
        self._before = self.snapshot()

    def undo_batch(self) -> None:
        self.restore(self._before)

    def train(self, index: int, learning_rate: np.float32) -> int:
        assert self.model.training is not None
        arguments = {**self._arguments(index), "learning_rate": learning_rate}
        (loss,) = run_graph(self.model.training, arguments, self.state)
        self._pending += 1
        return int(np.float32(loss[0]))  # the device gives it as float32

    def update(self, learning_rate: np.float32) -> None:
        assert self.model.update is not None
        count = np.int32(self._pending)
        run_graph(self.model.update, {"learning_rate": learning_rate, "count": count}, self.state)
        self._pending = 0

    def masters_sane(self) -> bool:
        masters = [self.state[t.name] for t in self.model.training_state if t.purpose is Purpose.MASTER]
        return all(bool((np.abs(master) < MASTER_LIMIT).all()) for master in masters)

    def evaluate(self, index: int) -> tuple[int, int]:
        assert self.model.evaluate is not None
        loss, *right = run_graph(self.model.evaluate, self._arguments(index), self.state)
        return int(loss[0]), int(right[0][0]) if right else 0

    def snapshot(self) -> dict[str, np.ndarray]:
        return {name: value.copy() for name, value in self.state.items()}

    def restore(self, snapshot: dict[str, np.ndarray]) -> None:
        self.state.update(snapshot)
        self._pending = 0

    def _arguments(self, index: int) -> dict[str, Any]:
        number = self.chosen[index]
        y = None if self.y is None else self.y[number]
        return {self.model.inference.inputs[0].name: self.x[number], **target_argument(self.model.target, y)}


class DeviceSteps:
    """Training steps on a device, each from a sample of x (N, ...) and y by its number.

    Where the model has latents a sample is encoded the first time, and its steps begin behind that, as long as the
    device has room for those of another; a step of one that finds none begins at the input and gives the same.
    `encodings`: the instructions of each encoding, None where they are not counted.
    """

    def __init__(self, model: CompiledModel, device: Runner, x: np.ndarray, y: np.ndarray | None):
        self.model, self.device, self.x, self.y = model, device, x, y
        self.encodings: list[int | None] = []
        self._room = 0 if model.latent is None else model.latent_room if isinstance(device, Device) else len(x)
        self._kept: dict[int, int] = {}  # sample -> its number among the latents

    def train(self, number: int, learning_rate: float) -> Run:
        """One step; `device.instructions()` is then of it alone."""
        data, target = self.sample(number)
        if number not in self._kept:
            if len(self._kept) == self._room:
                return self.device.train_step(data, target, learning_rate)
            self.device.encode(data, len(self._kept))
            self.encodings.append(self.device.instructions())
            self._kept[number] = len(self._kept)
        return self.device.train_latents(self._kept[number], target, learning_rate)

    def sample(self, number: int) -> tuple[bytes, int | bytes | None]:
        """Input and target, as a device takes them."""
        target = target_on_device(self.model.target, None if self.y is None else self.y[number])
        return np.ascontiguousarray(self.x[number]).tobytes(), target


class DeviceLearner:
    """A device, every step of which the host asks for. `instructions`: of each training step, where they are counted.

    To undo, it goes back to where the epoch began and learns again up to there: reading the state in front of every
    step would take longer than the step on a serial line.
    """

    def __init__(self, model: CompiledModel, device: Runner, x: np.ndarray, y: np.ndarray | None, chosen: np.ndarray):
        self.device, self.chosen, self.steps = device, chosen, DeviceSteps(model, device, x, y)
        self.batch_size = model.training_config.batch_size
        self.instructions: list[int | None] = []
        self._sane = True
        self._start = self.snapshot()
        self._done: list[tuple[int | None, np.float32]] = []  # since then; None for an update
        self._batch = 0

    def begin_epoch(self) -> None:
        self._start, self._done = self.snapshot(), []

    def begin_batch(self) -> None:
        self._batch = len(self._done)

    def undo_batch(self) -> None:
        again = self._done[: self._batch]
        self.restore(self._start)
        self._done = []
        for index, learning_rate in again:
            if index is None:
                self.update(learning_rate)
            else:
                self._step(index, learning_rate)

    def train(self, index: int, learning_rate: np.float32) -> int:
        loss = self._step(index, learning_rate)
        self.instructions.append(self.device.instructions())
        return int(loss * ONE_Q16)

    def update(self, learning_rate: np.float32) -> None:
        self._sane = self.device.update(float(learning_rate)).masters_sane
        self._done.append((None, learning_rate))

    def masters_sane(self) -> bool:
        return self._sane

    def evaluate(self, index: int) -> tuple[int, int]:
        evaluated = self.device.evaluate(*self.steps.sample(int(self.chosen[index]))).evaluated
        assert evaluated is not None
        return evaluated

    def snapshot(self) -> tuple[bytes, bytes]:
        return self.device.read("adapter"), self.device.read("training")

    def restore(self, snapshot: tuple[bytes, bytes]) -> None:
        self.device.write("adapter", snapshot[0])
        self.device.write("training", snapshot[1])

    def _step(self, index: int, learning_rate: np.float32) -> float:
        run = self.steps.train(int(self.chosen[index]), float(learning_rate))
        self._sane = run.masters_sane
        self._done.append((index, learning_rate))
        assert run.loss is not None
        return run.loss
