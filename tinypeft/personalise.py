"""Run and train a model on a device: outputs and accuracy of samples, and the adapter that a few of them teach it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from tinypeft.compiler import CompiledModel
from tinypeft.device import Device
from tinypeft.errors import AdapterError, DataError, DeviceError
from tinypeft.ir import DTYPES
from tinypeft.schedule import Schedule
from tinypeft.state import pack_adapter, unpack_tensors

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Outputs:
    """`outputs` (N, ...) in the model's dtype; `predictions` (N,): the largest logit, or output where there are none.

    `instructions`: mean per inference, None where nothing counts them.
    """

    outputs: np.ndarray
    predictions: np.ndarray
    instructions: int | None

    @property
    def sha256(self) -> str:
        """SHA-256 of the outputs' bytes."""
        return hashlib.sha256(np.ascontiguousarray(self.outputs).tobytes()).hexdigest()

    def accuracy(self, y: np.ndarray) -> float:
        """The share of predictions that are their label."""
        return float(np.mean(self.predictions == y))


@dataclass(frozen=True)
class Trained:
    """What training gave: the adapter `package`, the persistent tensors `state`, and how it went.

    Accuracies are of the samples that were not trained on; `losses` is the mean per epoch.
    """

    accuracy_before: float | None
    accuracy_after: float | None
    losses: list[float]
    steps: int
    package: bytes
    state: dict[str, np.ndarray] = field(repr=False)
    instructions_per_step: int | None
    stack_high_water: int
    guards_intact: bool

    @property
    def adapter_sha256(self) -> str:
        """SHA-256 of the adapter package."""
        return hashlib.sha256(self.package).hexdigest()


def infer_all(model: CompiledModel, device: Device, x: np.ndarray, progress: Callable[[int], None]) -> Outputs:
    """Every sample of x (N, ...) through the device; `progress` is called with the number done."""
    outputs, predictions, counts = [], [], []
    for number, sample in enumerate(x):
        run = device.infer(np.ascontiguousarray(sample).tobytes())
        output = np.frombuffer(run.output, np.dtype(DTYPES[model.output.dtype]).newbyteorder("<"))
        scores = np.frombuffer(device.read("logits"), "<f4") if model.logits is not None else output
        outputs.append(output.reshape(model.output.shape[1:]))
        predictions.append(int(scores.argmax()))
        counts.append(device.instructions())
        progress(number + 1)
    known = [count for count in counts if count is not None]
    mean = round(sum(known) / len(known)) if known else None
    return Outputs(np.stack(outputs), np.array(predictions), mean)


def train_adapter(
    model: CompiledModel,
    device: Device,
    x: np.ndarray,
    y: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    *,
    epochs: int,
    learning_rate: Schedule | float,
    seed: int,
    progress: Progress = lambda phase, done, total: None,
) -> Trained:
    """Train a fresh adapter on the device from the samples `train`, in an order that `seed` shuffles every epoch.

    `test` are the samples that accuracy is measured on, before and after. A float as learning rate is a constant one;
    a schedule counts updates, of which there are `update_count`. Raises AdapterError for a model without
    adapters, DataError for nothing to train on, DeviceError where memory was overrun.
    """
    if model.training is None:
        raise AdapterError(f"{model.name} was generated without adapters", "generate it with --adapter lora")
    if len(train) == 0 or epochs < 1:
        raise DataError(
            f"{len(train)} samples and {epochs} epochs leave nothing to train on", "give --shots and --epochs"
        )
    device.reset_adapter(seed)
    before = _accuracy(model, device, x, y, test, "accuracy before", progress)
    losses, steps, counts = [], 0, []
    shuffle, batch = np.random.RandomState(seed), model.training_config.batch_size
    schedule = learning_rate if isinstance(learning_rate, Schedule) else Schedule(learning_rate)
    updates = 0
    for _ in range(epochs):
        order = shuffle.permutation(train)
        total = 0.0
        for position, index in enumerate(order):
            rate = float(schedule.rate(updates))
            run = device.train_step(np.ascontiguousarray(x[index]).tobytes(), int(y[index]), rate)
            assert run.loss is not None
            total += run.loss
            counts.append(device.instructions())
            if (position + 1) % batch == 0 or position + 1 == len(order):
                if batch > 1:
                    device.update(rate)
                updates += 1
            steps += 1
            progress("training", steps, epochs * len(train))
        losses.append(total / len(order))
    after = _accuracy(model, device, x, y, test, "accuracy after", progress)
    state = _read_state(model, device)
    package = device.export_adapter()
    if package != pack_adapter(model, state):
        raise DeviceError("the exported package is not the adapter in the device's memory")
    stats = device.stats()
    if not stats.guards_intact:
        raise DeviceError("the words around the arena were overwritten", "generate and build the project again")
    known = [count for count in counts if count is not None]
    mean = round(sum(known) / len(known)) if known else None
    return Trained(before, after, losses, steps, package, state, mean, stats.stack_high_water, stats.guards_intact)


def update_count(model: CompiledModel, samples: int, epochs: int) -> int:
    """How many updates `train_adapter` makes; the last of each epoch may be of fewer samples than a batch."""
    return -(-samples // model.training_config.batch_size) * epochs


def _accuracy(
    model: CompiledModel, device: Device, x: np.ndarray, y: np.ndarray, test: np.ndarray, phase: str, progress: Progress
) -> float | None:
    if len(test) == 0:
        return None
    outputs = infer_all(model, device, x[test], lambda done: progress(phase, done, len(test)))
    return outputs.accuracy(y[test])


def _read_state(model: CompiledModel, device: Device) -> dict[str, np.ndarray]:
    state: dict[str, np.ndarray] = {}
    for target, tensors in (("adapter", model.adapter_weights), ("training", model.training_state)):
        state |= unpack_tensors(tensors, device.read(target, 0, sum(t.nbytes for t in tensors)))
    return state
