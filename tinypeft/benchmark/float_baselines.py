"""What float training makes of each user: results of methods, seeds and rates from the cache or trained now."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinypeft.benchmark.base_models import BaseModel, base_models, tensorflow_version
from tinypeft.benchmark.cache import cache_folder, digest, read_json
from tinypeft.benchmark.datasets import BenchmarkDataset
from tinypeft.benchmark.process import Progress, run_training, silent
from tinypeft.errors import DataError, ToolError

#: base: the model as it is; head: its last dense layer; lora: rank 4 and the head; full: every weight, its best rate
METHODS = ("base", "head", "lora", "full")
#: Counts changes of how float baselines are trained.
_REVISION = 1


@dataclass(frozen=True)
class FloatResult:
    """The metric of one run on the user's test samples; `rate` is 0 for "base". A diverged run's mse is infinite."""

    method: str
    rate: float
    user: str
    seed: int
    value: float


@dataclass(frozen=True)
class Summary:
    """A method at one rate: `users` are means over seeds, `mean` and `worst` are of those."""

    method: str
    rate: float
    users: dict[str, float]
    mean: float
    worst: float


def float_results(
    dataset: BenchmarkDataset,
    methods: list[str],
    seeds: list[int],
    users: list[str] | None = None,
    progress: Progress = silent,
) -> list[FloatResult]:
    """One result a method, rate, user and seed; `users` None: all. What the cache has not is trained now.

    DataError for an unknown method; ToolError: no TensorFlow, or training failed.
    """
    unknown = [method for method in methods if method not in METHODS]
    if unknown:
        raise DataError(f"unknown float method {unknown[0]!r}", "choose from: " + ", ".join(METHODS))
    bases = base_models(dataset, users, progress)
    runs = [run for user, base in bases.items() for seed in seeds for run in _runs(dataset, methods, user, seed, base)]
    missing = [run for run in runs if read_json(Path(run["path"])) is None]
    if missing:
        missing.sort(key=lambda run: (METHODS.index(run["method"]), run["rate"]))
        run_training({"dataset": dataset.name, "bases": [], "runs": missing}, progress)
    return [FloatResult(run["method"], run["rate"], run["user"], run["seed"], _value(run)) for run in runs]


def summarize(dataset: BenchmarkDataset, results: list[FloatResult], best_rates: bool = True) -> list[Summary]:
    """A summary of each method and rate, in order; with `best_rates` only of a method's rate with the best mean.

    The rate is chosen by the test samples of these very users, in favour of the method that has several.
    """
    summaries = []
    for method, rate in dict.fromkeys((result.method, result.rate) for result in results):
        of_users: dict[str, list[float]] = {}
        for result in results:
            if (result.method, result.rate) == (method, rate):
                of_users.setdefault(result.user, []).append(result.value)
        means = {user: float(np.mean(values)) for user, values in of_users.items()}
        worst = (min if dataset.metric == "accuracy" else max)(means.values())
        summaries.append(Summary(method, rate, means, float(np.mean(list(means.values()))), worst))
    if not best_rates:
        return summaries
    best = max if dataset.metric == "accuracy" else min
    return [
        best((s for s in summaries if s.method == method), key=lambda s: s.mean)
        for method in dict.fromkeys(s.method for s in summaries)
    ]


def _rates(dataset: BenchmarkDataset, method: str) -> tuple[float, ...]:
    return {"base": (0.0,), "full": dataset.full_rates}.get(method, (dataset.learning_rate,))


def _runs(dataset: BenchmarkDataset, methods: list[str], user: str, seed: int, base: BaseModel) -> list[dict[str, Any]]:
    """The runs of one user and seed; "path" is where the result is kept."""
    split = dataset.split(user, seed)
    data = digest(split.train.x, split.train.y, split.test.x, split.test.y)
    runs = []
    for method in methods:
        for rate in _rates(dataset, method):
            run = {"method": method, "rate": rate, "user": user, "seed": seed, "epochs": dataset.epochs}
            loss = dataset.metric, dataset.class_weights
            key = digest(run, data, base.digest, loss, dataset.target_modules, _REVISION, tensorflow_version())
            path = cache_folder() / "float" / dataset.name / f"{user}-{seed}-{method}-{rate:g}-{key}.json"
            runs.append(run | {"model": str(base.path), "path": str(path)})
    return runs


def _value(run: dict[str, Any]) -> float:
    result = read_json(Path(run["path"]))
    if result is None:
        raise ToolError(f"{run['path']} was removed while it was used", "run the command again")
    return math.inf if result["value"] is None else float(result["value"])
