"""Run and train a model on a device: outputs and accuracy of samples, and the adapter that a few of them teach it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from tinypeft.compiler import CompiledModel
from tinypeft.data import VectorForm
from tinypeft.device import Device, Runner
from tinypeft.device.fit import FitProgress, FitResult
from tinypeft.errors import AdapterError, DataError, DeviceError
from tinypeft.fit import FitConfig, fit, split
from tinypeft.ir import DTYPES, Tensor
from tinypeft.learners import ONE_Q16, DeviceLearner, DeviceSteps, classes_of
from tinypeft.losses import INPUT, target_on_device
from tinypeft.schedule import Schedule
from tinypeft.state import pack_adapter, unpack_tensors

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Outputs:
    """`outputs` (N, ...) in the model's dtype; `scores` (N, outputs): real logits, or real outputs without them.

    `threshold`: the score above which an output of its own is a yes. `instructions`: mean per inference, None where
    nothing counts them.
    """

    outputs: np.ndarray
    scores: np.ndarray
    threshold: float
    instructions: int | None

    @property
    def sha256(self) -> str:
        """SHA-256 of the outputs' bytes."""
        return hashlib.sha256(np.ascontiguousarray(self.outputs).tobytes()).hexdigest()

    def accuracy(self, y: np.ndarray) -> float:
        """The share of labels (N,) with the largest score, or of values of vectors that are a right yes or no."""
        if y.ndim == 1:
            return float(np.mean(self.scores.argmax(1) == y))
        return float(np.mean((self.scores > self.threshold) == (y > 0.5)))

    def error(self, y: np.ndarray) -> float:
        """The mean squared error against real values (N, outputs)."""
        return float(np.mean((self.scores - y) ** 2))


@dataclass(frozen=True)
class Quality:
    """How good outputs are: `accuracy` of a loss that decides, `error` (mean squared) of one that does not."""

    accuracy: float | None = None
    error: float | None = None


@dataclass(frozen=True)
class Trained:
    """What training gave: the adapter `package`, the persistent tensors `state`, and how it went.

    Accuracies and mean squared errors are of the samples that were not trained on; `losses` is the mean per epoch.
    `instructions_per_step` is a mean, as is `instructions_per_encoding`, of each of the `samples_from_latents`: those
    whose latents the device had room for.
    `fit`: what guard rails decided, where there were any.
    """

    accuracy_before: float | None
    accuracy_after: float | None
    error_before: float | None
    error_after: float | None
    losses: list[float]
    steps: int
    package: bytes
    state: dict[str, np.ndarray] = field(repr=False)
    instructions_per_step: int | None
    stack_high_water: int
    guards_intact: bool
    fit: FitResult | None = None
    instructions_per_encoding: int | None = None
    samples_from_latents: int = 0

    @property
    def adapter_sha256(self) -> str:
        """SHA-256 of the adapter package."""
        return hashlib.sha256(self.package).hexdigest()


def infer_all(model: CompiledModel, device: Runner, x: np.ndarray, progress: Callable[[int], None]) -> Outputs:
    """Every sample of x (N, ...) through the device; `progress` is called with the number done."""
    outputs, logits, counts = [], [], []
    for number, sample in enumerate(x):
        run = device.infer(np.ascontiguousarray(sample).tobytes())
        outputs.append(np.frombuffer(run.output, np.dtype(DTYPES[model.output.dtype]).newbyteorder("<")))
        if model.logits is not None:
            logits.append(np.frombuffer(device.read("logits"), "<i4"))
        counts.append(device.instructions())
        progress(number + 1)
    return outputs_of(model, outputs, logits or None, model.output, _mean(counts))


def outputs_of(
    model: CompiledModel,
    outputs: Sequence[np.ndarray],
    logits: Sequence[np.ndarray] | None,
    tensor: Tensor,
    instructions: int | None = None,
) -> Outputs:
    """Outputs of one array a sample, each of the form of `tensor`; the logits are scores where there are any."""
    shaped = np.stack([output.reshape(tensor.shape[1:]) for output in outputs])
    if logits is not None and model.logits is not None:
        scores = np.stack([_real(model.logits, each.reshape(-1)) for each in logits])
        return Outputs(shaped, scores, 0.0, instructions)
    final = model.inference.producer(model.output)
    probable = final is not None and final.kind == "LOGISTIC"
    return Outputs(shaped, _real(tensor, shaped.reshape(len(shaped), -1)), 0.5 if probable else 0.0, instructions)


def quality(model: CompiledModel, outputs: Outputs, x: np.ndarray, y: np.ndarray | None) -> Quality:
    """How well `outputs` of the samples x (N, ...) meet y, or x itself where the model is trained to give that."""
    if model.training is not None and model.training_config.target == INPUT:
        return Quality(error=outputs.error(_real(model.inference.inputs[0], x.reshape(len(x), -1))))
    if y is None:
        return Quality()
    if y.ndim == 2 and not model.loss.classifies:
        return Quality(error=outputs.error(y))
    return Quality(accuracy=outputs.accuracy(y))


def _real(tensor: Tensor, values: np.ndarray) -> np.ndarray:
    if tensor.scale is None:
        return values.astype(np.float64)
    return (values.astype(np.float64) - tensor.zero_point) * float(tensor.scale[0])


def train_adapter(
    model: CompiledModel,
    device: Runner,
    x: np.ndarray,
    y: np.ndarray | None,
    train: np.ndarray,
    test: np.ndarray,
    *,
    epochs: int,
    learning_rate: Schedule | float,
    seed: int,
    start: bytes | None = None,
    progress: Progress = lambda phase, done, total: None,
    fit_config: FitConfig | None = None,
    on_device: bool = False,
) -> Trained:
    """Train an adapter on the device from the samples `train`, in an order that `seed` shuffles every epoch.

    It is a fresh one, or goes on from the package `start`.

    `y` holds labels or target vectors as `Dataset` does; it may be None where the loss compares with the input.
    `test` are the samples that are measured before and after. A float as learning rate is a constant one; a schedule
    counts updates, of which there are `update_count`. With `fit_config` there are guard rails, and epochs, learning
    rate and order are as it says; `on_device`: the device is given the samples and trains by itself. Raises
    AdapterError for a model without adapters, DataError for nothing to train on, or a hold-back that leaves nothing to
    judge by, DeviceError where memory was overrun or samples find no room.
    """
    if model.training is None:
        raise AdapterError(f"{model.name} was generated without adapters", "generate it with --adapter lora")
    if len(train) == 0 or epochs < 1:
        raise DataError(
            f"{len(train)} samples and {epochs} epochs leave nothing to train on", "give --shots and --epochs"
        )
    if fit_config is None and on_device:
        raise DataError("a device that trains by itself needs the settings of a fit", "give them")
    if on_device:
        if not isinstance(device, Device):
            raise DataError("the interpreter keeps no samples to train from by itself", "leave --on-device out")
        device.check_room(len(train))
    if fit_config is not None:
        learned_count(model, y, train, fit_config)  # fail before anything is measured
    device.reset_adapter(seed)
    if start is not None:
        device.load_adapter(start)
    before = _quality(model, device, x, y, test, "accuracy before", progress)
    result = None
    if fit_config is None:
        trainer = DeviceSteps(model, device, x, y)
        losses, steps, counts = _train_in_order(trainer, train, epochs, learning_rate, seed, progress)
        encodings = trainer.encodings
    else:
        result, losses, counts, encodings = _fit(model, device, x, y, train, fit_config, on_device, progress)
        steps = result.steps
    after = _quality(model, device, x, y, test, "accuracy after", progress)
    state = _read_state(model, device)
    package = device.export_adapter()
    if package != pack_adapter(model, state):
        raise DeviceError("the exported package is not the adapter in the device's memory")
    stats = device.stats()
    if not stats.guards_intact:
        raise DeviceError("the words around the arena were overwritten", "generate and build the project again")
    return Trained(
        before.accuracy,
        after.accuracy,
        before.error,
        after.error,
        losses,
        steps,
        package,
        state,
        _mean(counts),
        stats.stack_high_water,
        stats.guards_intact,
        result,
        _mean(encodings),
        result.learned if result is not None and on_device and model.latent is not None else len(encodings),
    )


def target_form(model: CompiledModel) -> tuple[int, VectorForm | None]:
    """(number of classes, or of values a vector; the form of target vectors, None where training takes labels)."""
    vectors = None
    if model.target is not None and model.target.shape:
        vectors = VectorForm(model.target.size, *model.loss.bounds)
    return max(model.output.shape[-1:], default=1), vectors


def update_count(model: CompiledModel, samples: int, epochs: int) -> int:
    """How many updates `train_adapter` makes; the last of each epoch may be of fewer samples than a batch."""
    return -(-samples // model.training_config.batch_size) * epochs


def learned_count(model: CompiledModel, y: np.ndarray | None, train: np.ndarray, config: FitConfig) -> int:
    """How many of the samples `train` are not held back; DataError as `fit.split`."""
    return len(split(classes_of(model, y, train), config)[0])


def _mean(counts: Sequence[int | None]) -> int | None:
    """Rounded, of what was counted."""
    known = [count for count in counts if count is not None]
    return round(sum(known) / len(known)) if known else None


def _train_in_order(
    trainer: DeviceSteps,
    train: np.ndarray,
    epochs: int,
    learning_rate: Schedule | float,
    seed: int,
    progress: Progress,
) -> tuple[list[float], int, list[int | None]]:
    """Every sample, every epoch: mean losses, steps, instructions of each."""
    losses, steps, counts = [], 0, []
    device, batch = trainer.device, trainer.model.training_config.batch_size
    shuffle = np.random.RandomState(seed)
    schedule = learning_rate if isinstance(learning_rate, Schedule) else Schedule(learning_rate)
    updates = 0
    for _ in range(epochs):
        order = shuffle.permutation(train)
        total = 0.0
        for position, index in enumerate(order):
            rate = float(schedule.rate(updates))
            run = trainer.train(int(index), rate)
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
    return losses, steps, counts


def _fit(
    model: CompiledModel,
    device: Runner,
    x: np.ndarray,
    y: np.ndarray | None,
    train: np.ndarray,
    config: FitConfig,
    on_device: bool,
    progress: Progress,
) -> tuple[FitResult, list[float], list[int | None], list[int | None]]:
    """With guard rails, by the device itself or step by step.

    The result, mean losses, instructions of each step and of each encoding.
    """
    losses: list[float] = []
    before = 0

    def hear(heard: FitProgress) -> None:
        nonlocal before
        progress("training", heard.steps, heard.total)
        if heard.ended:
            losses.append(heard.loss / ONE_Q16 / max(heard.steps - before, 1))
            before = heard.steps

    classes = classes_of(model, y, train)
    if not on_device or not isinstance(device, Device):
        learner = DeviceLearner(model, device, x, y, train)
        return fit(learner, classes, config, hear), losses, learner.instructions, learner.steps.encodings
    for position, number in enumerate(train):
        target = target_on_device(model.target, None if y is None else y[number])
        device.store_sample(position, np.ascontiguousarray(x[number]).tobytes(), target)
        progress("storing samples", position + 1, len(train))
    return device.fit(config.request(len(train)), hear), losses, [], []


def _quality(
    model: CompiledModel,
    device: Runner,
    x: np.ndarray,
    y: np.ndarray | None,
    test: np.ndarray,
    phase: str,
    progress: Progress,
) -> Quality:
    if len(test) == 0:
        return Quality()
    outputs = infer_all(model, device, x[test], lambda done: progress(phase, done, len(test)))
    return quality(model, outputs, x[test], None if y is None else y[test])


def _read_state(model: CompiledModel, device: Runner) -> dict[str, np.ndarray]:
    state: dict[str, np.ndarray] = {}
    for target, tensors in (("adapter", model.adapter_weights), ("training", model.training_state)):
        state |= unpack_tensors(tensors, device.read(target, 0, sum(t.nbytes for t in tensors)))
    return state
