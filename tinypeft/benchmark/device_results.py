"""What training on the device makes of each user: results of integer methods, from the cache or trained now."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinypeft.api import Model
from tinypeft.benchmark.base_models import BaseModel, base_models
from tinypeft.benchmark.cache import cache_folder, digest, read_json, write_json
from tinypeft.benchmark.datasets import BenchmarkDataset, UserSplit
from tinypeft.benchmark.methods import METHODS, Method, attached
from tinypeft.benchmark.process import Progress, silent
from tinypeft.errors import DataError
from tinypeft.fit import FitConfig
from tinypeft.resources import resource_path

#: Of the samples to train on, what is held back to judge by where there are guard rails, and what an adapter must gain
#: there: a likelihood 4.5 times as high, which is more than a chance.
HELD_BACK, MIN_GAIN = 0.2, 1.5


@dataclass(frozen=True)
class Cost:
    """What a method needs: trained parameters, bytes of the adapter's package and of RAM, MACs of a training step.

    RAM is arena, adapter and training state; a training step's MACs are beside those of one inference.
    """

    parameters: int
    package_bytes: int
    arena_bytes: int
    state_bytes: int
    training_macs: int
    inference_macs: int


@dataclass(frozen=True)
class DeviceResult:
    """The metric of one run on the user's test samples, and of the fresh adapter, which is the integer base."""

    method: str
    user: str
    seed: int
    value: float
    before: float
    cost: Cost


@dataclass(frozen=True)
class DeviceSummary:
    """A method: `users` are means over seeds, `mean` and `worst` of those; `lost` the most a run lost on the base."""

    method: str
    rate: float
    users: dict[str, float]
    mean: float
    worst: float
    lost: float
    cost: Cost


def device_results(
    dataset: BenchmarkDataset,
    methods: list[str],
    seeds: list[int],
    users: list[str] | None = None,
    *,
    guard: bool = False,
    workers: int = 2,
    progress: Progress = silent,
) -> list[DeviceResult]:
    """One result a method, user and seed, trained on the host twin; what the cache has not is trained now.

    `guard`: hold back HELD_BACK of the samples, and keep an adapter only if it is not worse on those. DataError for an
    unknown method; ToolError: no compiler or no TensorFlow.
    """
    unknown = [method for method in methods if method not in METHODS]
    if unknown:
        raise DataError(f"unknown method {unknown[0]!r}", "choose from: " + ", ".join(METHODS))
    bases = base_models(dataset, users, progress)
    jobs = [(METHODS[method], user, base) for method in methods for user, base in bases.items()]
    total, results = len(jobs) * len(seeds), dict[tuple[str, str, int], DeviceResult]()
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(_runs, dataset, *job, seeds, guard) for job in jobs]
        try:
            for future in as_completed(futures):
                for result in future.result():
                    results[result.method, result.user, result.seed] = result
                progress(f"{result.method} of {result.user}", len(results), total)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [results[method.name, user, seed] for method, user, _ in jobs for seed in seeds]


def summarize_device(dataset: BenchmarkDataset, results: Iterable[DeviceResult]) -> list[DeviceSummary]:
    """A summary of each method, in order."""
    summaries = []
    more = 1.0 if dataset.metric == "accuracy" else -1.0
    every = list(results)
    for method in dict.fromkeys(result.method for result in every):
        of_method = [result for result in every if result.method == method]
        values: dict[str, list[float]] = {}
        for result in of_method:
            values.setdefault(result.user, []).append(result.value)
        users = {user: sum(found) / len(found) for user, found in values.items()}
        worst = (min if dataset.metric == "accuracy" else max)(users.values())
        lost = max(more * (result.before - result.value) for result in of_method)
        rate = dataset.learning_rate * METHODS[method].rate
        summaries.append(
            DeviceSummary(method, rate, users, sum(users.values()) / len(users), worst, lost, of_method[0].cost)
        )
    return summaries


def _runs(
    dataset: BenchmarkDataset, method: Method, user: str, base: BaseModel, seeds: list[int], guard: bool
) -> list[DeviceResult]:
    """The runs of one user, which share a project."""
    results, model = [], None
    for seed in seeds:
        split = dataset.split(user, seed)
        settings = {"epochs": dataset.epochs, "rate": dataset.learning_rate * method.rate, "guard": guard}
        data = digest(split.train.x, split.train.y, split.test.x, split.test.y)
        key = digest(method, user, seed, settings, data, base.digest, dataset.metric, dataset.target_modules, _code())
        path = cache_folder() / "device" / dataset.name / f"{user}-{seed}-{method.name.replace(' ', '_')}-{key}.json"
        found = read_json(path)
        if found is None:
            model = model or attached(dataset, Model.load(base.path, base.calibration), method)
            found = _train(dataset, model, split, seed, settings)
            write_json(path, found)
        cost = Cost(**found["cost"])
        results.append(DeviceResult(method.name, user, seed, found["value"], found["before"], cost))
    return results


def _train(
    dataset: BenchmarkDataset, model: Model, split: UserSplit, seed: int, settings: dict[str, Any]
) -> dict[str, Any]:
    train, test = split.train, split.test
    labelled = dataset.metric == "accuracy"
    fit = None
    if settings["guard"]:
        gain = MIN_GAIN if labelled else 0.0
        fit = FitConfig(
            settings["epochs"],
            settings["rate"],
            seed,
            held_back_share=HELD_BACK,
            replayed=split.replayed,
            min_gain=gain,
        )
    trained = model.train(
        train.x,
        train.y if labelled else None,
        test=(test.x, test.y if labelled else None),
        epochs=settings["epochs"],
        learning_rate=settings["rate"],
        seed=seed,
        fit=fit,
    )
    value, before = (
        (trained.accuracy_after, trained.accuracy_before) if labelled else (trained.error_after, trained.error_before)
    )
    compiled = model.compiled
    assert compiled.training is not None
    cost = Cost(
        parameters=sum(p.master.size for p in compiled.parameters),
        package_bytes=compiled.package_bytes,
        arena_bytes=compiled.arena.arena_bytes,
        state_bytes=compiled.adapter_bytes + compiled.training_bytes,
        training_macs=sum(op.op.macs(op) for op in compiled.training.operations),
        inference_macs=sum(op.op.macs(op) for op in compiled.inference.operations),
    )
    return {"value": value, "before": before, "cost": vars(cost)}


@functools.cache
def _code() -> str:
    """A hash of all code that a result depends on."""
    folders = Path(__file__).resolve().parents[1], resource_path("firmware"), resource_path("templates")
    total = hashlib.sha256()
    for folder in folders:
        for path in sorted(p for p in folder.rglob("*") if p.suffix in (".py", ".c", ".h", ".j2")):
            total.update(path.read_bytes())
    return total.hexdigest()[:16]
