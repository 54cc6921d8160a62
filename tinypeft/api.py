"""`Model`: load, attach adapters, generate firmware, train, evaluate, merge, export: the API behind the commands."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from tinypeft.adapter_files import read_adapter, write_adapter
from tinypeft.adapter_state import AdapterLike, adapter_from_package, require_adapters
from tinypeft.adapters import AdapterConfig, Targets
from tinypeft.adapters.lora_options import starts_from_factors
from tinypeft.boards import Board, load_board
from tinypeft.compiler import CompiledModel
from tinypeft.data import Dataset, choose_split, make_dataset
from tinypeft.device import Runner
from tinypeft.errors import AdapterError, DataError
from tinypeft.fit import FitConfig
from tinypeft.fitting import DEFAULT_STACK
from tinypeft.frontend import LoadedModel, load_model
from tinypeft.generate import Project, Report, compile_for, generate_project, keras_model, load_source, open_project
from tinypeft.interpreted import INTERPRETER, InterpretedDevice
from tinypeft.kernels import DEFAULT_KERNELS, KernelConfig
from tinypeft.losses import LOSSES
from tinypeft.memory import MemoryConfig
from tinypeft.merging.files import MergeReport, merge_files
from tinypeft.package.verifier import Verifier
from tinypeft.personalise import (
    Outputs,
    Quality,
    Trained,
    infer_all,
    quality,
    target_form,
    train_adapter,
    update_count,
)
from tinypeft.running import running_device
from tinypeft.schedule import scheduled
from tinypeft.training import TrainingConfig

HOST = "host"
_NO_ADAPTER = AdapterConfig(adapter="none")


@dataclass(frozen=True)
class Evaluation:
    """`outputs` of the samples, and how good they are; what has no meaning for the loss is None."""

    outputs: Outputs
    quality: Quality

    @property
    def accuracy(self) -> float | None:
        """The share of right decisions."""
        return self.quality.accuracy

    @property
    def error(self) -> float | None:
        """The mean squared error."""
        return self.quality.error


@dataclass(eq=False)
class Model:
    """A model, perhaps with adapters; `attach` and `generate` give a new one.

    source       the int8 base
    path         the file it was loaded from; of a project that in its folder
    adapter      which adapters it has
    training     how they are trained
    project      the firmware folder of `generate`, which every `on` but "interpreter" runs; "host" makes one for itself
    calibration  samples (N, ...) that quantised a Keras model
    report       what the firmware needs, where `generate` has just built it
    """

    source: LoadedModel
    path: Path
    adapter: AdapterConfig = _NO_ADAPTER
    training: TrainingConfig = field(default_factory=TrainingConfig)
    project: Project | None = None
    calibration: np.ndarray | None = field(default=None, repr=False)
    report: Report | None = field(default=None, repr=False)

    @classmethod
    def load(cls, path: Path | str, calibration: np.ndarray | None = None) -> Model:
        """The model of a .tflite that is int8 throughout, or of a .keras or .h5.

        `calibration` (N, ...), samples of the input, quantises a Keras model. ModelError: a missing, damaged or
        unsupported file; DataError: no suitable calibration; ToolError: no TensorFlow.
        """
        return cls(load_model(path, calibration), Path(path), calibration=calibration)

    @classmethod
    def open(cls, directory: Path | str) -> Model:
        """The model and adapters of a folder that `generate` wrote. OutputError: the folder is none."""
        project = open_project(directory)
        path = keras_model(project) or project.directory / "model" / "base.tflite"
        compiled = project.model
        return cls(project.source, path, compiled.adapter, compiled.training_config, project)

    def attach(
        self,
        kinds: str = "lora",
        *,
        r: int = 4,
        lora_alpha: float = 8.0,
        target_modules: Sequence[str] | str | None = None,
        modules_to_save: Sequence[str] | None = None,
        targets: Mapping[str, Sequence[str] | str] | None = None,
        **settings: Any,
    ) -> Model:
        """The model with fresh adapters instead of those that it has.

        kinds            names of adapter kinds joined by "+"
        target_modules   layers: names, or a regular expression of the whole name; None: all that a kind can adapt
        modules_to_save  layers to retrain whole; None: the last dense layer, a classifier
        targets          kind -> layers of its own
        settings         fields of TrainingConfig, such as optimizer="adam", and options of the kinds, such as density

        AdapterError: a setting that does not exist or does not fit, a layer that cannot be adapted.
        """
        known = {setting.name for setting in fields(TrainingConfig)}
        training = {name: value for name, value in settings.items() if name in known}
        loss = LOSSES.get(training.get("loss", TrainingConfig.loss))
        if loss is not None:
            training.setdefault("target", loss.targets[0])
        options = tuple((name, value) for name, value in settings.items() if name not in known)
        adapter = AdapterConfig(
            kinds,
            r,
            float(lora_alpha),
            None if target_modules is None else _names(target_modules),
            None if modules_to_save is None else tuple(modules_to_save),
            tuple((kind, _names(names)) for kind, names in (targets or {}).items()),
            options,
        )
        source = self.source
        if starts_from_factors(adapter):
            source = load_source(self.path, self.calibration, adapter, lambda step: None)[0]
        settled = TrainingConfig(**training)
        attached = replace(self, source=source, adapter=adapter, training=settled, project=None, report=None)
        attached.compiled  # noqa: B018  # raises what does not fit
        return attached

    @functools.cached_property
    def compiled(self) -> CompiledModel:
        """The graphs that are run: those of the project, or for no board in particular."""
        if self.project is not None:
            return self.project.model
        return compile_for(self.source, None, self.adapter, self.training, DEFAULT_STACK)

    @property
    def layers(self) -> list[str]:
        """The names of the layers that have weights, in order."""
        return list(dict.fromkeys(op.layer for op in self.source.graph.operations if "filter" in op.inputs))

    def generate(
        self,
        board: Board | str,
        directory: Path | str,
        *,
        memory: MemoryConfig | None = None,
        kernels: KernelConfig = DEFAULT_KERNELS,
        stack_bytes: int = DEFAULT_STACK,
        verifier: Verifier | None = None,
    ) -> Model:
        """Write the firmware project for `board` to `directory` and build it; the model that runs there.

        With a `verifier` (tinypeft.package.verifier) it takes signed adapters alone. Its `project` and `report` say
        what was built. FitError: it needs more memory than the board has; ToolError: no compiler; OutputError: the
        folder holds something else.
        """
        target = load_board(board) if isinstance(board, str) else board
        report = generate_project(
            self.path,
            target,
            directory,
            calibration=self.calibration,
            adapter=self.adapter,
            training=self.training,
            memory=memory or MemoryConfig(),
            kernels=kernels,
            stack_bytes=stack_bytes,
            source=self.source,
            verifier=verifier,
        )
        return replace(self, project=open_project(directory), report=report)

    def train(
        self,
        x: np.ndarray,
        y: np.ndarray | None = None,
        *,
        on: str = HOST,
        epochs: int = 10,
        learning_rate: float = 0.02,
        schedule: str = "constant",
        warmup: float = 0.0,
        final_fraction: float = 0.0,
        seed: int = 0,
        shots: int | None = None,
        train_split: float | None = None,
        test: tuple[np.ndarray, np.ndarray | None] | None = None,
        replay: tuple[np.ndarray, np.ndarray | None] | None = None,
        adapter: AdapterLike | Path | str | bytes | None = None,
        fit: FitConfig | None = None,
    ) -> Trained:
        """Train an adapter, a fresh one or from `adapter` on, sample by sample; the same seed gives the same bytes.

        x, y         samples (N, ...), real or int8, and labels (N,) or target vectors (N, outputs)
        on           interpreter, host[:FILE], qemu, renode, serial:PORT
        schedule     constant, linear or cosine; `warmup` and `final_fraction` as of `tinypeft train`
        shots        learn from so many samples of each class; or `train_split`, a share of each, by default half
        test         samples and labels to measure with, when all of x are learnt from; else those left over
        replay       samples and labels of others to learn from as well, so that what the base knows is not forgotten
        fit          guard rails; epochs, learning rate and order are then as it says

        AdapterError: no adapters; DataError: arrays that do not fit; ToolError, DeviceError: of what it runs on.
        """
        model = self.compiled
        require_adapters(model)
        dataset = self._dataset(x, y)
        if test is None:
            train, others = choose_split(dataset, shots, train_split, seed)
        else:
            if shots is not None or train_split is not None:
                raise DataError("test samples and a split of x exclude each other", "leave out shots and train_split")
            train = np.arange(len(dataset))
            dataset, others = dataset.joined(self._dataset(*test))
        if replay is not None:
            dataset, replayed = dataset.joined(self._dataset(*replay))
            train = np.concatenate([train, replayed])
            fit = None if fit is None else replace(fit, replayed=len(replayed))
        rates = scheduled(learning_rate, schedule, warmup, final_fraction, update_count(model, len(train), epochs))
        start = None if adapter is None else self.import_adapter(adapter).package
        with self._running(on) as device:
            return train_adapter(
                model,
                device,
                dataset.x,
                dataset.y,
                train,
                others,
                epochs=epochs,
                learning_rate=rates,
                seed=seed,
                start=start,
                fit_config=fit,
            )

    def evaluate(
        self,
        x: np.ndarray,
        y: np.ndarray | None = None,
        adapter: AdapterLike | Path | str | bytes | None = None,
        *,
        on: str = HOST,
    ) -> Evaluation:
        """Outputs of the samples x (N, ...), and how good they are against y, with `adapter` or a fresh one."""
        model, dataset = self.compiled, self._dataset(x, y)
        package = None if adapter is None else self.import_adapter(adapter).package
        with self._running(on) as device:
            if package is not None:
                device.load_adapter(package)
            outputs = infer_all(model, device, dataset.x, lambda done: None)
        return Evaluation(outputs, quality(model, outputs, dataset.x, dataset.y))

    def merge(
        self,
        adapter: AdapterLike | Path | str | bytes,
        output: Path | str,
        *,
        keras: Path | str | None = None,
        x: np.ndarray | None = None,
        y: np.ndarray | None = None,
    ) -> MergeReport:
        """Write the base with the adapter merged into its weights, an int8 .tflite; to `keras` a .keras of the same.

        With samples x (N, ...), and perhaps y, the report compares device and merged model. AdapterError: a kind that
        cannot be merged.
        """
        return merge_files(
            self.compiled,
            self.source,
            self.import_adapter(adapter),
            output,
            keras=keras,
            keras_base=self.path if self.source.keras_layers else None,
            dataset=None if x is None else self._dataset(x, y),
        )

    def export(self, adapter: AdapterLike | Path | str | bytes, directory: Path | str, **extra: Any) -> None:
        """Write the adapter's files: PEFT's, and the device's package; `extra` are JSON values to write with them."""
        given = self.import_adapter(adapter)
        write_adapter(directory, self.compiled, given.state, given.package, extra)

    def import_adapter(
        self, adapter: AdapterLike | Path | str | bytes, mapping: Mapping[str, str] | None = None
    ) -> AdapterLike:
        """The adapter in a folder of `export` or of PEFT, in a package's file or bytes; of this model, or AdapterError.

        `mapping`: module of the adapter -> layer, for those whose names do not tell.
        """
        if isinstance(adapter, bytes):
            return adapter_from_package(self.compiled, adapter)
        if isinstance(adapter, Path | str):
            return read_adapter(adapter, self.compiled, mapping)
        adapter_from_package(self.compiled, adapter.package)
        return adapter

    def _dataset(self, x: np.ndarray, y: np.ndarray | None) -> Dataset:
        model = self.compiled
        given = None if y is None else np.asarray(y)
        return make_dataset(np.asarray(x), given, model.inference.inputs[0], *target_form(model))

    @contextlib.contextmanager
    def _running(self, on: str) -> Iterator[Runner]:
        if on == INTERPRETER:
            yield InterpretedDevice(self.compiled)
            return
        project = self.project
        if project is None and on == HOST:
            project = self._host_project
        if project is None:
            raise AdapterError(
                f"the model has no firmware to run on {on}", 'generate it: model.generate("BOARD", "DIR")'
            )
        with running_device(project, on, count_instructions=True) as device:
            yield device

    @functools.cached_property
    def _host_project(self) -> Project:
        """A project for the host alone, in a folder that lives as long as the model."""
        self._folder = tempfile.TemporaryDirectory(prefix="tinypeft-")
        project = self.generate("host", Path(self._folder.name, "host")).project
        assert project is not None
        return project


def _names(names: Sequence[str] | str) -> Targets:
    return names if isinstance(names, str) else tuple(names)
