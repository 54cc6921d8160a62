"""The base model that a user starts from: trained once, kept in the cache, or a file of the evaluation data."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinypeft.benchmark.cache import cache_folder, digest, folder_is_intact
from tinypeft.benchmark.datasets import BaseTraining, BenchmarkDataset
from tinypeft.benchmark.process import Progress, run_training, silent
from tinypeft.errors import ModelError, ToolError
from tinypeft.frontend.keras import has_tensorflow, no_tensorflow

MODEL_FILE, CALIBRATION_FILE = "model.keras", "calibration.npy"


@dataclass(frozen=True)
class BaseModel:
    """A Keras model that several users may share. `digest` is a hash of all that determines it."""

    key: str
    path: Path
    digest: str
    calibration: np.ndarray


def base_models(
    dataset: BenchmarkDataset, users: list[str] | None = None, progress: Progress = silent
) -> dict[str, BaseModel]:
    """User -> the model that it starts from; `users` None: all. Those that the cache has not are trained now.

    ToolError: no TensorFlow, or training failed.
    """
    keys = {user: dataset.base_key(user) for user in users or dataset.users()}
    found = {key: _ready(dataset, key) or _cached(dataset, key) for key in dict.fromkeys(keys.values())}
    missing = [key for key, model in found.items() if model is None]
    if missing:
        jobs = [{"key": key, "folder": str(cached_folder(dataset, key))} for key in missing]
        run_training({"dataset": dataset.name, "bases": jobs, "runs": []}, progress)
        found |= {key: _cached(dataset, key) for key in missing}
    models = {}
    for user, key in keys.items():
        model = found[key]
        if model is None:
            raise ToolError(f"{cached_folder(dataset, key)} was removed while it was used", "run the command again")
        models[user] = model
    return models


def cached_folder(dataset: BenchmarkDataset, key: str) -> Path:
    """Where the trained base model `key` is kept."""
    return cache_folder() / "bases" / f"{dataset.name}-{key}-{_training_digest(dataset, key)}"


def tensorflow_version() -> str:
    """The version of the installed TensorFlow, which is not imported; ToolError where there is none."""
    if not has_tensorflow():
        raise no_tensorflow()
    for name in ("tensorflow", "tensorflow-cpu"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    raise no_tensorflow("it has no version")


def _training_digest(dataset: BenchmarkDataset, key: str) -> str:
    samples = dataset.base_samples(key)
    return digest(dataset.base, samples.x, samples.y, dataset.calibration(key), tensorflow_version())


def _ready(dataset: BenchmarkDataset, key: str) -> BaseModel | None:
    """The model that comes with the data, if this dataset's does."""
    if isinstance(dataset.base, BaseTraining):
        return None
    path = dataset.folder / dataset.base
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}", "check the evaluation data") from error
    return BaseModel(key, path, digest(content), dataset.calibration(key))


def _cached(dataset: BenchmarkDataset, key: str) -> BaseModel | None:
    """The trained model that the cache has, undamaged."""
    folder = cached_folder(dataset, key)
    if not folder_is_intact(folder):
        return None
    calibration = np.load(folder / CALIBRATION_FILE, allow_pickle=False)
    return BaseModel(key, folder / MODEL_FILE, folder.name.rpartition("-")[2], calibration)
