"""Datasets of the personalisation benchmark: one module each, found by importing this folder. See `base.Benchmark`."""

import difflib
import importlib
import pkgutil

from tinypeft.benchmark.datasets.base import (
    DATASETS,
    BaseTraining,
    BenchmarkDataset,
    Samples,
    UserSplit,
    data_folder,
    register,
)
from tinypeft.errors import DataError

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = [
    "DATASETS",
    "BaseTraining",
    "BenchmarkDataset",
    "Samples",
    "UserSplit",
    "data_folder",
    "load_benchmark",
    "register",
]


def load_benchmark(name: str) -> BenchmarkDataset:
    """The dataset called `name`, its files present; DataError for an unknown name or a missing file."""
    if name not in DATASETS:
        nearest = difflib.get_close_matches(name, DATASETS, n=1, cutoff=0.4)
        hint = f"did you mean {nearest[0]}?" if nearest else "choose one of: " + ", ".join(sorted(DATASETS))
        raise DataError(f"unknown dataset {name!r}", hint)
    dataset = DATASETS[name](data_folder())
    dataset.check_files()
    return dataset
