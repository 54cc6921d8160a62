"""Generated projects of the small models, built once for all tests: `project("batches")` in a test."""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pytest
import small_models

from tinypeft.adapters import AdapterConfig
from tinypeft.boards import load_board
from tinypeft.compiler import CompiledModel
from tinypeft.data import Dataset
from tinypeft.device import Device
from tinypeft.emulators import EMULATORS
from tinypeft.generate import Project, Report, generate_project, open_project
from tinypeft.project import build_twin
from tinypeft.stages.autodiff import TrainingConfig

BOARD = "stm32f4_discovery"

#: name -> (model, adapter, training)
CONFIGURATIONS: dict[str, tuple[str, AdapterConfig, TrainingConfig]] = {
    "plain": ("plain", AdapterConfig(), TrainingConfig()),
    "residual": ("residual", AdapterConfig(r=3), TrainingConfig()),
    "softmax_end": ("softmax_end", AdapterConfig(), TrainingConfig()),
    "no_saved_module": ("plain", AdapterConfig(modules_to_save=()), TrainingConfig()),
    "gated": ("gated", AdapterConfig(r=2), TrainingConfig()),
    "normalised": ("normalised", AdapterConfig(r=2), TrainingConfig(momentum=0.5)),
    "inference": ("residual", AdapterConfig(adapter="none"), TrainingConfig()),
    "batches": ("plain", AdapterConfig(r=2), TrainingConfig(momentum=0.9, batch_size=4)),
    "regex": ("residual", AdapterConfig(target_modules="branch_.*|again"), TrainingConfig(momentum=0.5)),
    "classifier_only": ("plain", AdapterConfig(target_modules=()), TrainingConfig()),
    "lora_int4": ("residual", AdapterConfig(r=3, options=(("lora_bits", 4),)), TrainingConfig()),
    "lora_patterns": (
        "residual",
        AdapterConfig(
            modules_to_save=(),
            options=(("rank_pattern", "branch_.*=1,again=5"), ("use_rslora", True), ("init_lora_weights", "gaussian")),
        ),
        TrainingConfig(momentum=0.5),
    ),
    "mlp": ("mlp", AdapterConfig(), TrainingConfig()),
    "bits_8": ("residual", AdapterConfig(r=3), TrainingConfig(momentum=0.5, grad_bits=8)),
    "latents": (
        "residual",
        AdapterConfig(r=2, target_modules="again|head"),
        TrainingConfig(latents=True, momentum=0.5),
    ),
    "latents_batches": (
        "residual",
        AdapterConfig(r=2, target_modules="branch_a|head"),
        TrainingConfig(latents=True, batch_size=3, loss="binary_cross_entropy", target="vector"),
    ),
    "latents_input": (
        "autoencoder",
        AdapterConfig(r=2, target_modules="decoder"),
        TrainingConfig(latents=True, loss="mean_squared_error", target="input", grad_bits=8),
    ),
    "whole": ("mlp", AdapterConfig("modules_to_save", modules_to_save=("first", "head")), TrainingConfig()),
    "whole_conv": (
        "plain",
        AdapterConfig(target_modules=(), modules_to_save=("stem", "head")),
        TrainingConfig(momentum=0.5),
    ),
    "more_classes": ("plain", AdapterConfig(options=(("head_classes", "2,new,0,1,new"),)), TrainingConfig()),
    "float_edges": ("float_edges", AdapterConfig(), TrainingConfig()),
    "conv_mean": ("conv_mean", AdapterConfig(), TrainingConfig()),
    "no_bias": ("no_bias", AdapterConfig(), TrainingConfig()),
    "dense_reshape": ("dense_reshape", AdapterConfig(), TrainingConfig()),
    "nesterov": ("plain", AdapterConfig(r=2), TrainingConfig(momentum=0.9, nesterov=True, weight_decay=0.01)),
    "adam": ("residual", AdapterConfig(r=3), TrainingConfig("adam", weight_decay=0.1)),
    "adam8": ("plain", AdapterConfig(r=2), TrainingConfig("adam8")),
    "clipped": ("mlp", AdapterConfig(r=2), TrainingConfig("adam8", batch_size=3, clip_norm=0.5)),
    "bitfit": ("softmax_end", AdapterConfig("bitfit", modules_to_save=()), TrainingConfig(momentum=0.5)),
    "ia3": ("plain", AdapterConfig("ia3", modules_to_save=()), TrainingConfig()),
    "channels": ("forms", AdapterConfig("bitfit+ia3"), TrainingConfig(momentum=0.9, batch_size=4)),
    "lora_channels": ("plain", AdapterConfig("lora+bitfit+ia3", r=2), TrainingConfig()),
    "sparse_channels": ("plain", AdapterConfig("bitfit+ia3+sparse", modules_to_save=()), TrainingConfig()),
    "bottleneck": (
        "plain",
        AdapterConfig("bottleneck", options=(("reduction_factor", 3),)),
        TrainingConfig(momentum=0.5),
    ),
    "bottleneck_swish": (
        "softmax_end",
        AdapterConfig("bottleneck+lora", modules_to_save=(), options=(("non_linearity", "hard_swish"),)),
        TrainingConfig(),
    ),
    "parallel_bottleneck": (
        "residual",
        AdapterConfig(
            "parallel_bottleneck+bottleneck", options=(("reduction_factor", 3), ("non_linearity", "hard_swish"))
        ),
        TrainingConfig(),
    ),
    "parallel_bottleneck_mlp": ("mlp", AdapterConfig("parallel_bottleneck"), TrainingConfig(batch_size=4)),
    "input_offset": ("plain", AdapterConfig("input_offset"), TrainingConfig()),
    "input_offset_first_classifier": (
        "dense_reshape",
        AdapterConfig("lora+input_offset", options=(("input_offset_shape", "channel"),)),
        TrainingConfig(momentum=0.9),
    ),
    "input_offset_float": ("float_edges", AdapterConfig("input_offset+bottleneck"), TrainingConfig(batch_size=3)),
    "layout": ("layout", AdapterConfig(r=2), TrainingConfig()),
    "smoothed": (
        "plain",
        AdapterConfig(r=2),
        TrainingConfig(label_smoothing=0.1, class_weights=(1.0, 0.2, 3.0, 1.0, 0.0)),
    ),
    "binary": ("plain", AdapterConfig(r=2), TrainingConfig(loss="binary_cross_entropy", target="vector")),
    "binary_end": (
        "binary_end",
        AdapterConfig(r=2, modules_to_save=()),
        TrainingConfig(loss="binary_cross_entropy", target="vector", momentum=0.5),
    ),
    "regression": (
        "conv_mean",
        AdapterConfig(r=2),
        TrainingConfig(loss="mean_squared_error", target="vector", batch_size=3),
    ),
    "constant": ("constant", AdapterConfig(r=2, target_modules="hidden"), TrainingConfig(momentum=0.5)),
    "autoencoder": ("autoencoder", AdapterConfig(r=2), TrainingConfig(loss="mean_squared_error", target="input")),
    "sparse": ("plain", AdapterConfig("sparse", options=(("density", 0.3),)), TrainingConfig(momentum=0.5)),
    "sparse_forms": (
        "forms",
        AdapterConfig("sparse", modules_to_save=(), options=(("channels", "grouped=1,6;head=0"), ("density", 0.4))),
        TrainingConfig(batch_size=2),
    ),
    "sparse_whole": ("no_bias", AdapterConfig("sparse", options=(("density", 1.0),)), TrainingConfig()),
    "sparse_lora": ("residual", AdapterConfig("lora+sparse", r=2, options=(("density", 0.4),)), TrainingConfig()),
}
TRAINABLE = [name for name, (_, adapter, _) in CONFIGURATIONS.items() if adapter.adapter != "none"]


@dataclass(frozen=True)
class Built:
    """A project folder with firmware and twin, what `generate` reported, and samples."""

    name: str
    directory: Path
    report: Report
    opened: Project
    learning_rate: float

    @property
    def model(self) -> CompiledModel:
        """Its graphs."""
        return self.opened.model

    def samples(self, count: int, seed: int = 0) -> Dataset:
        """Random samples, and the labels or target vectors that the model learns from, if any."""
        dataset = small_models.samples(self.opened.source, count, seed)
        model = self.model
        if model.training is None or (model.target is not None and not model.target.shape):
            return dataset
        if model.target is None:
            return Dataset(dataset.x, None)
        low, high = (max(bound, -4.0) for bound in (model.loss.bounds[0], min(model.loss.bounds[1], 4.0)))
        y = np.random.default_rng(seed + 1).uniform(low, high, (count, model.target.size))
        return Dataset(dataset.x, y)

    def save_samples(self, path: Path, count: int = 20) -> str:
        """The same in a file, as --data takes it."""
        dataset = self.samples(count)
        if dataset.y is None:
            np.savez(path, x=dataset.x)
            return f"{path}:x"
        np.savez(path, x=dataset.x, y=dataset.y)
        return f"{path}:x:y"

    @contextlib.contextmanager
    def twin(self) -> Iterator[Device]:
        """A fresh host twin."""
        with EMULATORS["host"].open(self.directory, self.opened.board) as device:
            yield device

    def copy(self, folder: Path) -> Path:
        """A copy of the folder, to be changed."""
        return Path(shutil.copytree(self.directory, folder / self.name))


def save_model(name: str, folder: Path) -> Path:
    """The .tflite file of a small model."""
    path = folder / f"{name}.tflite"
    path.write_bytes(small_models.model_bytes(name))
    return path


def builder(folder: Path) -> Callable[[str], Built]:
    """(name in CONFIGURATIONS) -> its project in `folder`, built the first time, by one of several processes."""
    built: dict[str, Built] = {}

    def build(name: str) -> Built:
        if name not in built:
            if shutil.which("arm-none-eabi-gcc") is None:
                pytest.skip("arm-none-eabi-gcc is not installed; apt install gcc-arm-none-eabi")
            directory, rate = folder / name, small_models.learning_rate(CONFIGURATIONS[name][0])
            with (folder / f"{name}.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                report = _generate(name, directory)
            built[name] = Built(name, directory, report, open_project(directory), rate)
        return built[name]

    return build


def _generate(name: str, directory: Path) -> Report:
    """Generate and build a project, unless another process has; what `generate` reported."""
    report = directory.parent / f"{name}.json"
    if not report.exists():
        model, adapter, training = CONFIGURATIONS[name]
        folder = directory.parent / f"{name}.model"
        folder.mkdir()
        made = generate_project(
            save_model(model, folder), load_board(BOARD), directory, adapter=adapter, training=training
        )
        build_twin(directory)
        report.write_text(json.dumps(asdict(made)))
    return Report(**json.loads(report.read_text()))
